"""The real stack with the mocker engine, run by the real command."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from entrypoint.commands.demo.model import make_demo_model
from entrypoint.plan.own_questions import MARK
from tests.support.runner import Runner, alive, until
from tests.support.stack import COMMAND, ask, chat, free_ports, run

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo_model(tmp_path_factory.mktemp("models") / "glm")


def ready(runner: Runner) -> None:
    until(lambda: runner.get("/readyz")[0] == 200 or runner.process.poll() is not None, "ready", 60)
    assert runner.process.poll() is None, runner.text()


def test_one_node(tmp_path: Path) -> None:
    """The README's demo: answers, survives a killed frontend, ends with a killed engine."""
    ports = free_ports()
    with run(tmp_path / "run", "demo", **ports) as runner:
        runner.wait_for("Ctrl-C stops it", 60)
        port = ports["GLM47_HTTP_PORT"]
        code, answer = chat(port)
        assert code == 200 and answer["usage"]["completion_tokens"] == 8
        code, answer = ask(port, "/v1/completions", {"model": "glm-4.7", "prompt": "Hello!", "max_tokens": 8})
        assert code == 200 and answer["choices"][0]["text"].strip()

        frontend = runner.status_of("frontend")["pid"]
        os.kill(frontend, signal.SIGKILL)
        until(lambda: runner.status_of("frontend")["pid"] not in (None, frontend), "a new frontend")
        ready(runner)
        assert chat(port)[0] == 200

        engine = runner.status_of("aggregated")["pid"]
        os.kill(engine, signal.SIGKILL)
        assert runner.wait() == 137
    assert runner.lines[-1].endswith("aggregated ended: killed by SIGKILL (137)")
    assert not alive(engine)


def test_ctrl_c_is_quick_and_a_second_start_at_once_works(tmp_path: Path) -> None:
    """What the first run registered must not be asked in the second one."""
    ports = free_ports()
    for _ in range(2):
        with run(tmp_path / "run", "demo", **ports) as runner:
            runner.wait_for("Ctrl-C stops it", 60)
            assert [chat(ports["GLM47_HTTP_PORT"], 1)[0] for _ in range(6)] == [200] * 6
            runner.signal(signal.SIGINT)
            assert runner.wait(15) == 0


def test_a_request_in_flight_is_answered_before_the_end(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    ports = free_ports()
    with run(tmp_path / "run", "demo", **ports) as runner, ThreadPoolExecutor() as pool:
        runner.wait_for("Ctrl-C stops it", 60)
        long = pool.submit(chat, ports["GLM47_HTTP_PORT"], 300)
        metric = 'dynamo_frontend_inflight_requests{model="glm-4.7"} 1'
        until(lambda: metric in str(metrics(ports["GLM47_HTTP_PORT"])), "the request is in flight")
        runner.signal(signal.SIGTERM)
        runner.wait_for("stopping")
        assert runner.wait(40) == 0
        code, answer = long.result(1)
        assert code == 200 and answer["usage"]["completion_tokens"] == 300


def test_a_worker_that_is_held_up_keeps_its_registration(tmp_path: Path) -> None:
    """Dynamo takes a worker that was silent for 10 s for dead, and it never registers again by itself."""
    ports = free_ports()
    with run(tmp_path / "run", "demo", **ports) as runner:
        runner.wait_for("Ctrl-C stops it", 60)
        keys = [path for path in (tmp_path / "run/store").rglob("*") if path.is_file()]
        assert keys
        engine = runner.status_of("aggregated")["pid"]
        os.kill(engine, signal.SIGSTOP)
        for _ in range(130):
            time.sleep(0.1)
            assert all(path.exists() for path in keys)
        os.kill(engine, signal.SIGCONT)
        ready(runner)
        assert chat(ports["GLM47_HTTP_PORT"])[0] == 200
        assert runner.status_of("frontend")["restarts"] == 0


def metrics(port: str) -> str:
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return str(answer.read().decode())


def smoke_pd(port: str, *runners: str) -> tuple[int, str]:
    """`smoke --pd` as a person types it."""
    words = [word for runner in runners for word in ("--worker", runner)]
    done = subprocess.run(
        [COMMAND, "smoke", f"http://127.0.0.1:{port}", "--pd", *words], capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


def test_disaggregated_as_five_containers_would_be(tmp_path: Path, model: Path) -> None:
    """etcd, NATS, frontend, prefill and decode, each its own runner, started in the wrong order."""
    shared = free_ports()
    common = {
        "GLM47_ENGINE": "mocker", "GLM47_MODEL_PATH": str(model), "GLM47_PREFILL_WORKERS": "1",
        "GLM47_DECODE_WORKERS": "1", "GLM47_HEAD_ADDRESS": "127.0.0.1", "DYN_TCP_RPC_HOST": "127.0.0.1",
    }  # fmt: skip
    keep = {"GLM47_ETCD_PORT", "GLM47_NATS_PORT", "GLM47_HTTP_PORT"}
    runners: dict[str, Runner] = {}
    with ExitStack() as stack:
        for role in ("frontend", "decode", "prefill", "nats", "etcd"):
            ports = free_ports() | {k: v for k, v in shared.items() if k in keep}
            runners[role] = stack.enter_context(run(tmp_path / role, ROLE=role, **common, **ports))
        for runner in runners.values():
            ready(runner)
        port = shared["GLM47_HTTP_PORT"]
        _, health = ask(port, "/health")
        components = {i["component"] for i in health["instances"] if i["endpoint"] == "generate"}
        assert components == {"prefill", "backend"}
        code, answer = chat(port)
        assert code == 200 and answer["usage"]["completion_tokens"] == 8
        prefill, decode = (f"127.0.0.1:{runners[role].health_port}" for role in ("prefill", "decode"))
        code, said = smoke_pd(port, prefill, decode)
        assert code == 0 and said.count("4 requests counted by 1") == 2, said
        code, said = smoke_pd(port, decode)
        assert code == 1 and "no prefill worker is known" in said

        runners["decode"].signal(signal.SIGTERM)
        code = runners["decode"].wait()
        assert code == 0, runners["decode"].text()
        until(lambda: runners["frontend"].get("/readyz")[0] == 503, "the frontend misses its decode worker")
        _, why = runners["frontend"].get("/readyz")
        assert "0 of 1 backend" in str(why)
        for runner in runners.values():
            assert MARK not in runner.text() and "on_failure" not in runner.text()
        for role in ("frontend", "prefill", "nats", "etcd"):
            runners[role].signal(signal.SIGTERM)
        assert [runners[r].wait(30) for r in ("frontend", "prefill", "nats", "etcd")] == [0, 0, 0, 0]


def test_a_server_that_never_answers_is_69(tmp_path: Path, model: Path) -> None:
    settings = {"GLM47_ENGINE": "mocker", "GLM47_MODEL_PATH": str(model), "GLM47_SERVER_TIMEOUT": "1"}
    with run(
        tmp_path / "run", ROLE="decode", GLM47_HEAD_ADDRESS="127.0.0.1", **settings, **free_ports()
    ) as runner:
        assert runner.wait() == 69
    assert "etcd-server at http://127.0.0.1" in runner.lines[-1]
    assert "did not answer for 1 s" in runner.lines[-1] and "GLM47_HEAD_ADDRESS" in runner.lines[-1]
    assert (tmp_path / "run.reason").read_text().strip() in runner.lines[-1]


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        ({"GLM47_TP": "3", "GLM47_ENGINE": "sglang"}, 78, "GLM47_TP"),
        ({"GLM47_TPP": "4"}, 78, "GLM47_TP"),
        ({"GLM47_MODEL_PATH": "/nonexistent"}, 66, "/nonexistent"),
        ({"GLM47_RUN_DIR": "/proc/nope"}, 73, "GLM47_RUN_DIR"),
        ({"GLM47_NATS_BIN": "/bin/false"}, 1, "nats"),
    ],
)
def test_wrong_settings(tmp_path: Path, model: Path, settings: dict[str, str], code: int, words: str) -> None:
    given = {
        "ROLE": "single",
        "GLM47_ENGINE": "mocker",
        "GLM47_MODEL_PATH": str(model),
        "GLM47_MAX_RESTARTS": "0",
    }
    env = {**given, **free_ports(), **settings}
    with Runner([COMMAND, "run"], env={"GLM47_RUN_DIR": str(tmp_path / "run"), **env}) as runner:
        assert runner.wait() == code
    assert words in runner.lines[-1], runner.text()


def test_two_runners_do_not_share_a_run_dir(tmp_path: Path) -> None:
    with run(tmp_path / "run", "demo", **free_ports()) as first:
        first.wait_for("Ctrl-C stops it", 60)
        with run(tmp_path / "run", "demo", **free_ports()) as second:
            assert second.wait() == 78
        assert f"pid {first.process.pid}" in second.lines[-1]
        assert first.process.poll() is None
