"""The real AIPerf against the real stack with the mocker engine."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from entrypoint.commands.bench import aiperf, results
from entrypoint.commands.demo.model import make_demo_model
from entrypoint.errors import ConfigError
from tests.support.runner import Runner, until
from tests.support.stack import COMMAND, free_ports, run

pytestmark = pytest.mark.stack

KEY = "a-key-that-nobody-may-see"
AT_A_TIME, REQUESTS, OSL = 4, 40, 64


@pytest.fixture(scope="module", autouse=True)
def _aiperf() -> None:
    try:
        aiperf.find(os.environ.get("GLM47_AIPERF_PYTHON"), os.environ, sys.prefix)
    except ConfigError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def ports() -> dict[str, str]:
    return free_ports()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, ports: dict[str, str]) -> Iterator[Runner]:
    """One container with everything; the last test ends it."""
    with run(tmp_path_factory.mktemp("demo") / "run", "demo", **ports) as runner:
        runner.wait_for("Ctrl-C stops it", 60)
        yield runner


def address(ports: dict[str, str]) -> str:
    return f"http://127.0.0.1:{ports['GLM47_HTTP_PORT']}"


def bench(*words: str, **env: str) -> Runner:
    return Runner([COMMAND, "bench", *words], env=env)


def report_in(directory: Path) -> dict[str, Any]:
    data = json.loads((directory / "report.json").read_text())
    assert isinstance(data, dict)
    return data


class Counters:
    """The frontend's counters, sampled while a benchmark runs: throughput by another clock than AIPerf's."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._samples: list[tuple[float, float, int, int, int]] = []
        """Asked and answered at; then requests done and in flight, and tokens, at a moment between."""
        self._end = threading.Event()
        self.command_lines: set[str] = set()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> Counters:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        self._thread.join()

    def _sample(self) -> None:
        names = ("requests_total", "inflight_requests", "output_tokens_total")
        while not self._end.wait(0.02):
            asked = time.monotonic()
            with urllib.request.urlopen(f"{self._url}/metrics", timeout=10) as answer:
                lines = answer.read().decode().splitlines()
            values = [
                sum(int(float(v.split()[-1])) for v in lines if v.startswith(f"dynamo_frontend_{name}{{"))
                for name in names
            ]
            self._samples.append((asked, time.monotonic(), values[0], values[1], values[2]))
            if len(self._samples) % 50 == 0:
                self.command_lines |= {
                    p.read_text() for p in Path("/proc").glob("[0-9]*/cmdline") if _there(p)
                }

    def throughput(self, requests: int) -> tuple[float, float]:
        """Output tokens per second from the begin of the last `requests` requests to their end, at least and
        at most: each of the two lies between two samples."""
        before = self._samples[-1][2] - requests
        idle = max(i for i, (_, _, done, flying, _) in enumerate(self._samples) if done + flying <= before)
        over = next(i for i, (_, _, done, _, _) in enumerate(self._samples) if done == before + requests)
        tokens = self._samples[over][4] - self._samples[idle][4]
        longest = self._samples[over][1] - self._samples[idle][0]
        shortest = self._samples[over - 1][0] - self._samples[idle + 1][1]
        return tokens / longest, tokens / shortest


def _there(path: Path) -> bool:
    try:
        return bool(path.read_bytes())
    except OSError:
        return False


def test_quick_agrees_with_the_frontend(demo: Runner, ports: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    begin = time.monotonic()
    words = ("quick", address(ports), "--output", str(out), "--set", f"requests={REQUESTS}")
    with (
        Counters(address(ports)) as counters,
        bench(*words, GLM47_API_KEY=KEY, GLM47_HEALTH_PORT=ports["GLM47_HEALTH_PORT"]) as runner,
    ):
        assert runner.wait(60) == 0, runner.text()
    assert time.monotonic() - begin < 60
    assert runner.lines[-1] == str(out / "report.md")

    report = report_in(out)
    (found,) = report["runs"]
    assert (report["state"], found["succeeded"], found["failed"]) == ("complete", REQUESTS, 0)
    assert found["output_tokens"] == REQUESTS * OSL
    assert found["server_tokens"] == pytest.approx(found["output_tokens"], rel=0.02)
    measured = found["metrics"]["output_throughput"]
    least, most = counters.throughput(REQUESTS)
    assert least * 0.98 <= measured <= most * 1.02
    assert most < least * 1.5, "sampled too seldom to say anything"

    # What AIPerf summed up is what its records say: a killed run is judged by the same rules.
    artifacts = out / found["artifacts"]
    summed = results.read(artifacts).metrics
    (artifacts / results.SUMMARY).rename(tmp_path / "summary.json")
    recounted = results.read(artifacts)
    assert recounted.from_records and recounted.succeeded == REQUESTS
    assert recounted.metrics == {key: pytest.approx(value, rel=0.01) for key, value in summed.items()}

    (deployment,) = report["context"]["deployment"]
    assert deployment["roles"] == ["nats", "aggregated", "frontend"]
    assert {p["name"] for p in deployment["plan"]["processes"]} == {"nats", "aggregated", "frontend"}
    assert report["plots"] == ["inter-token-latency.png", "time-to-first-token-percentiles.png"]
    for name in report["plots"]:
        assert (out / name).read_bytes().startswith(b"\x89PNG") and f"({name})" in (
            out / "report.md"
        ).read_text()
    assert any("aiperf" in line for line in counters.command_lines)
    assert not any(KEY in line for line in counters.command_lines)
    assert not [p for p in out.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]


def test_ctrl_c_leaves_a_partial_report(demo: Runner, ports: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("full", address(ports), "--output", str(out), "--tokenizer", tokenizer(demo, ports))
    records = out / "aiperf" / "concurrency-4" / "run-1" / results.RECORDS
    with bench(*words, "--set", "osl=16", "--health", "127.0.0.1:9") as runner:
        until(lambda: answered(records) > 4, "requests", 60)
        runner.signal(signal.SIGINT)
        assert runner.wait(30) == 130, runner.text()
    assert "ended by SIGINT after 0 of 6 whole runs: see" in runner.lines[-1]
    report = report_in(out)
    (found,) = report["runs"]
    assert (report["state"], found["state"]) == ("interrupted", "interrupted")
    assert 4 <= found["succeeded"] < 80 and found["metrics"]["output_throughput"] > 0
    assert not report["context"]["deployment"][0]["reached"]
    assert "inter-token-latency.png" in report["plots"]
    assert not [p for p in Path("/proc").glob("[0-9]*/cmdline") if _there(p) and str(out) in p.read_text()]


def test_a_server_that_dies_half_way(demo: Runner, ports: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("quick", address(ports), "--output", str(out), "--tokenizer", tokenizer(demo, ports))
    records = out / "aiperf" / "quick" / "run-1" / results.RECORDS
    with bench(*words, "--set", "requests=300") as runner:
        until(lambda: answered(records) > 4, "requests", 60)
        os.kill(demo.status_of("aggregated")["pid"], signal.SIGKILL)
        assert runner.wait(60) == 1, runner.text()
    told = f"glm47-runner: cannot finish {address(ports)}: the server was lost during quick, after "
    assert runner.lines[-1].startswith(told) and runner.lines[-1].endswith(f": see {out / 'report.md'}")
    report = report_in(out)
    (found,) = report["runs"]
    assert (report["state"], found["state"]) == ("server lost", "server lost")
    assert found["succeeded"] >= 4 and found["failed"] > 0 and found["errors"]
    assert found["metrics"]["time_to_first_token_p50"] > 0


def answered(records: Path) -> int:
    """Measured requests that AIPerf has written down."""
    return records.read_text().count('"benchmark_phase":"profiling"') if records.is_file() else 0


def tokenizer(demo: Runner, ports: dict[str, str]) -> str:
    return str(demo.get("/plan")[1]["model_source"])


def test_one_prefill_and_one_decode_worker(tmp_path: Path) -> None:
    ports = free_ports()
    model = make_demo_model(tmp_path / "models" / "glm")
    settings = {
        "ROLE": "etcd,nats,prefill,decode,frontend", "GLM47_ENGINE": "mocker", "GLM47_MODEL_PATH": str(model),
        "GLM47_PREFILL_WORKERS": "1", "GLM47_DECODE_WORKERS": "1", "GLM47_HEAD_ADDRESS": "127.0.0.1",
        "DYN_TCP_RPC_HOST": "127.0.0.1",
    }  # fmt: skip
    profile = tmp_path / "own.json"
    lengths = {"requests": 12, "isl": 32, "osl": 16}
    tests = [{"name": f"c{n}", "concurrency": n, **lengths} for n in (2, 4)]
    profile.write_text(json.dumps({"name": "own", "tests": tests}))
    out = tmp_path / "out"
    words = ("quick", address(ports), "--profile", str(profile), "--output", str(out), "--wait", "60")
    with (
        run(tmp_path / "run", **settings, **ports),
        bench(*words, GLM47_HEALTH_PORT=ports["GLM47_HEALTH_PORT"]) as runner,
    ):
        assert runner.wait(90) == 0, runner.text()
    assert any("waiting at most 60 s for http://127.0.0.1" in line for line in runner.lines), runner.text()
    report = report_in(out)
    assert [(r["test"], r["succeeded"], r["failed"]) for r in report["runs"]] == [
        ("c2", 12, 0),
        ("c4", 12, 0),
    ]
    assert [r["server_tokens"] for r in report["runs"]] == [12 * 16] * 2
    assert report["context"]["tokenizer"] == str(model)
    assert report["plots"][:2] == ["throughput.png", "time-to-first-token.png"]

    with bench("compare", str(out), str(out), "--format", "json") as compared:
        assert compared.wait() == 0
    differences = json.loads(compared.text())["differences"]
    assert {d["test"] for d in differences} == {"c2", "c4"}
    assert {(d["ratio"], d["verdict"]) for d in differences} == {(1.0, "unknown")}


class Broken(BaseHTTPRequestHandler):
    """Lists the model, and answers every question with an error."""

    def do_GET(self) -> None:
        self._answer(200, {"object": "list", "data": [{"id": "glm-4.7", "object": "model"}]})

    def do_POST(self) -> None:
        self._answer(500, {"error": {"message": "CUDA out of memory"}})

    def _answer(self, code: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def broken() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Broken) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["ftp://x"], 78, "cannot test: 'ftp://x' is not the URL of a server: give one such as http"),
        (["http://127.0.0.1:1"], 69, "cannot benchmark http://127.0.0.1:1: [Errno 111] Connection refused"),
        (["{broken}", "--model", "glm-5"], 78, "cannot benchmark {broken}: glm-5: it is not listed, but"),
        (["{broken}", "--tokenizer", "/nowhere"], 66, "cannot find the model's tokenizer: /nowhere: give a"),
        (["{broken}", "--tokenizer", "{model}"], 1,
         "cannot benchmark {broken}: completion: /v1/completions answered HTTP 500: "),
        (["{broken}", "--set", "requests=0"], 78, "cannot use profile quick: test quick requests: 0: "),
        (["{broken}", "--profile", "/no/file"], 78, "cannot read profile /no/file: No such file or"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_line(words: list[str], code: int, line: str, broken: str, tmp_path: Path) -> None:
    model = make_demo_model(tmp_path / "model")
    filled = [word.format(broken=broken, model=model) for word in words]
    with bench("quick", *filled, "--output", str(tmp_path / "out"), GLM47_HEALTH_PORT="9") as runner:
        assert runner.wait() == code, runner.text()
    (told,) = runner.lines
    assert told.startswith("glm47-runner: " + line.format(broken=broken)), told
    assert not (tmp_path / "out").exists()


def test_waiting_can_be_ended(tmp_path: Path) -> None:
    words = ("quick", "http://127.0.0.1:1", "--wait", "600", "--output", str(tmp_path / "out"))
    with bench(*words) as runner:
        runner.wait_for_match("bench: waiting at most 600 s for http://127.0.0.1:1: .*refused")
        runner.signal(signal.SIGTERM)
        assert runner.wait(10) == 143
    assert runner.lines[-1] == "glm47-runner: asked to stop before anything was measured"
    assert not (tmp_path / "out").exists()
