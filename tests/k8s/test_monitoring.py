"""What components/monitoring installs: Prometheus scrapes a real stack, and promtool tests the rules."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from entrypoint.commands.demo.model import make_demo_model
from entrypoint.plan.types import Gate, HangWatch, HttpProbe, LoadedProbe
from entrypoint.supervise.status import metrics
from tests.k8s.manifests import K8S, Object, named, with_component
from tests.k8s.programs import programs
from tests.support.plans import plan, process
from tests.support.runner import Runner, free_port, until
from tests.support.stack import free_ports, run

COMPONENT = K8S / "components" / "monitoring"
POD = 'namespace="a", pod="decode-0"'
PROCESS = f'{POD}, process="decode", role="decode"'
FIRING = {
    "Glm47Hangs": ({f"glm47_process_stuck_seconds{{{PROCESS}}}": "0x30 12x30"}, 31),
    "Glm47NotReady": ({f"glm47_ready{{{POD}}}": "1x30 0x30"}, 33),
    "Glm47StartTakesLong": (
        {f"glm47_ready{{{POD}}}": "0x60", f"glm47_uptime_seconds{{{POD}}}": "0+60x60"}, 46,
    ),
    "Glm47NotLive": ({f"glm47_live{{{POD}}}": "1x30 0x30"}, 32),
    "Glm47Unreachable": ({f'up{{{POD}, endpoint="health", service="glm47-pods"}}': "1x30 0x30"}, 33),
    "Glm47StoreLost": (
        {
            f'glm47_gate_open{{{POD}, gate="etcd"}}': "1x30 0x30",
            f"glm47_uptime_seconds{{{POD}}}": "0+60x60",
        }, 32,
    ),
    "Glm47Restarts": ({f"glm47_process_restarts_total{{{PROCESS}}}": "0x30 0+1x30"}, 36),
    "Glm47KnownFailure": ({f'glm47_findings_total{{{PROCESS},key="gpu-memory"}}': "_x30 1x30"}, 32),
    "Glm47LogLinesLost": ({f"glm47_output_dropped_lines_total{{{PROCESS}}}": "0x30 5x30"}, 32),
}  # fmt: skip
"""Series, a value for each minute, and the minute at which the alert fires; it does not before its cause."""


def tools() -> Path:
    """Where prometheus and promtool are."""
    return programs("prometheus", "bookworm", "prometheus", "promtool")


def promtool(*arguments: str | Path, text: str = "") -> None:
    command = [str(word) for word in (tools() / "promtool", *arguments)]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    return with_component("monitoring", tmp_path_factory.mktemp("monitoring"))


@pytest.fixture(scope="module")
def rules(objects: list[Object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of rules as Prometheus reads it."""
    path = tmp_path_factory.mktemp("rules") / "rules.yaml"
    path.write_text(yaml.safe_dump(named(objects, "PrometheusRule", "glm47")["spec"]))
    return path


def alerts(rules: Path) -> dict[str, Any]:
    (group,) = yaml.safe_load(rules.read_text())["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def test_every_alert_has_a_test(rules: Path) -> None:
    assert {*alerts(rules)} == {*FIRING}
    promtool("check", "rules", rules)


@pytest.mark.parametrize("alert", FIRING)
def test_an_alert_fires_for_its_cause_and_not_before(alert: str, rules: Path, tmp_path: Path) -> None:
    series, minute = FIRING[alert]
    input_series = [{"series": name, "values": values} for name, values in series.items()]
    before = {"eval_time": f"{minute - 3}m", "alertname": alert, "exp_alerts": []}
    test = tmp_path / "test.yaml"
    rule = alerts(rules)[alert]
    labels = dict(re.findall(r'(\w+)="([^"]*)"', next(iter(series)))) | rule["labels"]

    def filled(text: str) -> str:
        return re.sub(r"{{ \$labels\.(\w+) }}", lambda found: labels[found[1]], text)

    fires = {
        "exp_labels": labels,
        "exp_annotations": {name: filled(text) for name, text in rule["annotations"].items()},
    }
    after = {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": [fires]}
    groups = [{"interval": "1m", "input_series": input_series, "alert_rule_test": [before, after]}]
    test.write_text(
        yaml.safe_dump({"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": groups})
    )
    promtool("test", "rules", test)


# -- a real stack, scraped by Prometheus


class Prometheus:
    """A server that scrapes runners every second. Use as a context manager."""

    def __init__(self, directory: Path, health_ports: Mapping[str, str], rules: Path) -> None:
        """`health_ports`: by pod."""
        self.port = free_port()
        # What Prometheus' operator adds.
        added = {"namespace": "default", "endpoint": "health", "service": "glm47-pods"}
        job = {
            "job_name": "glm47",
            "static_configs": [
                {"targets": [f"127.0.0.1:{port}"], "labels": {"pod": pod, **added}}
                for pod, port in health_ports.items()
            ],
        }
        config = directory / "prometheus.yaml"
        every = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        made = {"global": every, "rule_files": [str(rules)], "scrape_configs": [job]}
        config.write_text(yaml.safe_dump(made))
        self._command = [
            str(tools() / "prometheus"), f"--config.file={config}",
            f"--storage.tsdb.path={directory / 'data'}", "--log.level=error",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]  # fmt: skip

    def __enter__(self) -> Prometheus:
        self._process = subprocess.Popen(self._command)
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.wait()

    def get(self, path: str, **query: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def scraped(self) -> bool:
        """Whether it has read every page; AssertionError with its complaint if it cannot read one."""
        assert self._process.poll() is None
        try:
            targets = self.get("targets")["activeTargets"]
        except OSError:
            return False
        for target in targets:
            assert re.search("^$|refused|deadline exceeded", target["lastError"]), target["lastError"]
        return bool(targets) and all(target["health"] == "up" for target in targets)


@pytest.fixture(scope="module")
def server(rules: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It has scraped a mocker stack and a worker, and both are ready."""
    directory = tmp_path_factory.mktemp("scraped")
    ports = free_ports()
    model = make_demo_model(directory / "model")
    settings = {"ROLE": "single", "GLM47_ENGINE": "mocker", "GLM47_MODEL_PATH": str(model), **ports}
    with run(directory / "run", **settings) as runner, worker(directory / "worker") as other:
        until(lambda: all(r.get("/readyz")[0] == 200 for r in (runner, other)), "both are ready", 120)
        pods = {"one": ports["GLM47_HEALTH_PORT"], "two": str(other.health_port)}
        with Prometheus(directory, pods, rules) as made:
            until(made.scraped, "every page has been scraped", 30)
            ready = "count(glm47_ready == 1) == 2"
            until(lambda: made.get("query", query=ready)["result"], "the samples are stored", 30)
            yield made


class Worker(BaseHTTPRequestHandler):
    """What a worker's metrics say of its requests; any other page is there too."""

    def do_GET(self) -> None:
        body = b"in_flight 3\nbegun 5\nanswered 700\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def worker(directory: Path) -> Iterator[Runner]:
    """A runner whose process writes SGLang's lines, is asked for its requests, and waited for a gate."""
    directory.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), Worker) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/metrics"
        lines = "echo Load weight begin; sleep 0.5; echo Successfully registered LLM; exec sleep 1000"
        decode = process(
            "decode", argv=("sh", "-c", lines), ready=LoadedProbe(), log_dialect="sglang",
            hang=HangWatch(100.0, 200.0, url, "in_flight", "begun", "answered", ""),
        )  # fmt: skip
        gate = Gate("etcd-server", HttpProbe(url), 60.0, "ETCD_ENDPOINTS")
        with Runner.of_plan(plan(decode, gates=(gate,)), directory) as runner:
            yield runner
        server.shutdown()


def test_prometheus_takes_the_page(server: Prometheus) -> None:
    found = server.get("query", query='glm47_process_ready{pod="one"}')["result"]
    values = {series["metric"]["process"]: series["value"][1] for series in found}
    assert values == {"nats": "1", "aggregated": "1", "frontend": "1"}


def test_promtool_finds_no_fault_in_the_page() -> None:
    status = {
        "version": "1", "state": "starting", "ready": False, "roles": ["decode"], "rank": 0, "nnodes": 1,
        "node": None, "model": "m", "uptime": 1.5, "exit_code": None, "reason": None, "waiting_for": [],
        "gates": [{"name": "etcd", "ready": True}], "probes": {"decode": {"count": 2, "seconds": 0.1}},
        "processes": [{
            "name": "decode", "role": "decode", "state": "running", "ready": False, "age": 1.5, "restarts": 0,
            "stuck_seconds": 0, "requests_in_flight": None, "phase": "weights",
            "phase_seconds": {"weights": 1.0},
        }],
    }  # fmt: skip
    promtool("check", "metrics", text=metrics.page(status, 0.0)[0].decode())


def expressions() -> list[str]:
    dashboard = json.loads((COMPONENT / "dashboard.json").read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


@pytest.mark.parametrize("expression", expressions())
def test_a_panel_of_the_dashboard_has_its_series(server: Prometheus, expression: str) -> None:
    def series() -> Any:
        return server.get("query", query=expression.replace("$namespace", ".*"))["result"]

    until(series, "the panel has series", 30)


def test_no_alert_fires_in_a_healthy_stack(server: Prometheus) -> None:
    (group,) = until(lambda: server.get("rules")["groups"], "rules", 30)
    assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}
    assert not server.get("alerts")["alerts"]
