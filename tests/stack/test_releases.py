"""The runner's stacks on releases of Dynamo beside the pinned one, with the mocker: make test-stacks.

`make releases` runs them on every release that is locked, and docs/releases.md says what came of it.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from bench.dynamo_releases import recorded
from entrypoint.commands.demo.model import make_demo_model
from tests.support.available import available
from tests.support.dynamo import EVERY_RUN, OTHERS, engine_settings, five_containers
from tests.support.runner import Runner, until
from tests.support.stack import ask, chat, free_ports, run, streamed

pytestmark = pytest.mark.dynamo
TOKENS = 8
START = 90.0
"""Seconds that a stack may take to be ready, on two processors with others' work."""
STOP = 60.0


@pytest.fixture(
    params=[*EVERY_RUN, *(pytest.param(version, marks=pytest.mark.releases) for version in OTHERS)]
)
def release(request: pytest.FixtureRequest) -> str:
    """Dynamo's release; it is installed."""
    version: str = request.param
    available(lambda: engine_settings(version))
    return version


def ready(runner: Runner) -> None:
    until(lambda: runner.get("/readyz")[0] == 200 or runner.process.poll() is not None, "ready", START)
    assert runner.process.poll() is None, runner.text()


def answers(port: str) -> None:
    """A chat completion comes, at once and streamed."""
    code, answer = chat(port, TOKENS)
    assert code == 200 and answer["usage"]["completion_tokens"] == TOKENS, answer
    assert answer["choices"][0]["message"]["content"].strip()
    assert len(streamed(port, TOKENS)) == TOKENS


def test_one_container(tmp_path: Path, release: str) -> None:
    """The demo: ready, answers, stops with 0; a killed engine is the end of its container."""
    with recorded(release, "one container"):
        one_container(tmp_path, release)


def one_container(tmp_path: Path, release: str) -> None:
    ports = free_ports()
    for stop in (True, False):
        with run(tmp_path / "run", "demo", **engine_settings(release), **ports) as runner:
            runner.wait_for("Ctrl-C stops it", START)
            answers(ports["GLM47_HTTP_PORT"])
            if stop:
                runner.signal(signal.SIGTERM)
                assert runner.wait(STOP) == 0, runner.text()
            else:
                os.kill(runner.status_of("aggregated")["pid"], signal.SIGKILL)
                assert runner.wait(STOP) == 137, runner.text()


def test_five_containers(tmp_path: Path, release: str) -> None:
    """Ready in any order, answer, go on with a worker that took a killed one's place, stop with 0."""
    with recorded(release, "five containers"):
        five(tmp_path, release)


def five(tmp_path: Path, release: str) -> None:
    model = make_demo_model(tmp_path / "models" / "glm")
    with five_containers(tmp_path, model, **engine_settings(release)) as deployment:
        runners, port = deployment.runners, deployment.port
        for runner in runners.values():
            ready(runner)
        _, health = ask(port, "/health")
        serving = {i["component"] for i in health["instances"] if i["endpoint"] == "generate"}
        assert serving == {"prefill", "backend"}
        answers(port)

        os.kill(runners["decode"].status_of("decode")["pid"], signal.SIGKILL)
        assert runners["decode"].wait(STOP) == 137
        until(lambda: runners["frontend"].get("/readyz")[0] == 503, "the frontend misses its decode worker")
        ready(deployment.start("decode"))
        ready(runners["frontend"])
        answers(port)

        for role in ("decode", "frontend", "prefill", "nats", "etcd"):
            runners[role].signal(signal.SIGTERM)
            assert runners[role].wait(STOP) == 0, runners[role].text()


def test_kubernetes_discovery_asks_for_no_etcd(tmp_path: Path, release: str) -> None:
    """The frontend, planned for it, looks for a cluster and not for etcd or NATS: none of them is here."""
    model = make_demo_model(tmp_path / "models" / "glm")
    place = {"ROLE": "frontend", "GLM47_ENGINE": "mocker", "GLM47_MODEL_PATH": str(model)}
    pod = {"POD_NAME": "frontend-0", "POD_NAMESPACE": "default", "POD_UID": "0", "KUBECONFIG": "/nonexistent"}
    backend = {"DYN_DISCOVERY_BACKEND": "kubernetes", "GLM47_MAX_RESTARTS": "0"}
    settings = {**place, **pod, **backend, **engine_settings(release), **free_ports()}
    with run(tmp_path / "run", **settings) as runner:
        assert runner.wait(START) != 0
    assert "Failed to create Kubernetes client" in runner.text()
