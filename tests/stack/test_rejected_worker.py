"""A second worker that Dynamo's frontend takes for another model: who looks is told, on every release."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from entrypoint.commands.demo.model import make_demo_model
from entrypoint.plan.releases import NEWEST
from tests.support.available import available
from tests.support.dynamo import EVERY_RUN, OTHERS, engine_settings
from tests.support.runner import Runner, until
from tests.support.stack import chat, free_ports, run

pytestmark = pytest.mark.dynamo
START = 90.0
"""Seconds that a runner may take to be ready, on two processors with others' work."""
REJECTED = (
    "the frontend gives a worker no requests: its model, or the model's path, is not the first worker's"
)
TOKENS = 4
RELEASES = [*EVERY_RUN, *(pytest.param(version, marks=pytest.mark.releases) for version in OTHERS)]


def ready(runner: Runner) -> None:
    until(lambda: runner.get("/readyz")[0] == 200 or runner.process.poll() is not None, "ready", START)
    assert runner.process.poll() is None, runner.text()


class Deployment:
    """etcd and NATS, a frontend, and a first worker, each with a runner and a run directory of its own."""

    def __init__(self, base: Path, release: str, stack: ExitStack) -> None:
        ports = free_ports()
        self._base, self._stack = base, stack
        self._shared = {name: ports[name] for name in ("GLM47_ETCD_PORT", "GLM47_NATS_PORT")} | {
            "GLM47_HTTP_PORT": ports["GLM47_HTTP_PORT"], "GLM47_ENGINE": "mocker",
            "GLM47_HEAD_ADDRESS": "127.0.0.1", "DYN_TCP_RPC_HOST": "127.0.0.1", **engine_settings(release),
        }  # fmt: skip
        self.port = ports["GLM47_HTTP_PORT"]
        self.model = make_demo_model(base / "models" / "glm")
        self.servers = self.start("servers", "etcd,nats")
        self.worker = self.start("worker", "aggregated")
        self.frontend = self.start("frontend", "frontend")
        for runner in (self.servers, self.worker, self.frontend):
            ready(runner)

    def start(self, name: str, role: str, model: Path | None = None) -> Runner:
        place = {"ROLE": role, "GLM47_MODEL_PATH": str(model or self.model)}
        return self._stack.enter_context(run(self._base / name, **(free_ports() | self._shared | place)))

    def told(self) -> bool:
        """Whether the frontend's status has it, as the page and /metrics do."""
        findings = self.frontend.status_of("frontend").get("findings") or []
        return any(finding["key"] == "worker-rejected" for finding in findings)


@contextmanager
def deployment(base: Path, release: str) -> Iterator[Deployment]:
    available(lambda: engine_settings(release))
    with ExitStack() as stack:
        yield Deployment(base, release, stack)


def another(base: Path) -> Path:
    """The model, with half of its context: another one to Dynamo."""
    model = make_demo_model(base / "another" / "glm")
    config = json.loads((model / "config.json").read_text())
    config["max_position_embeddings"] //= 2
    (model / "config.json").write_text(json.dumps(config))
    return model


@pytest.mark.parametrize("release", RELEASES)
def test_another_model_is_told_of(tmp_path: Path, release: str) -> None:
    """A line on every release, no requests for the second worker, and answers by the first."""
    with deployment(tmp_path, release) as made:
        second = made.start("second", "aggregated", another(tmp_path))
        until(made.told, "the frontend's runner tells it", START)
        assert REJECTED in made.frontend.text()
        assert second.process.poll() is None, "it goes on: the first one may leave"
        code, answer = chat(made.port, TOKENS)
        assert code == 200 and answer["usage"]["completion_tokens"] == TOKENS, answer


@pytest.mark.parametrize("release", [EVERY_RUN[0], NEWEST["dynamo"]])
def test_another_path_is_another_model_to_the_newest_release(tmp_path: Path, release: str) -> None:
    """The corrected model lies in the run directory, whose path the workers of a deployment have to share."""
    with deployment(tmp_path, release) as made:
        second = made.start("second", "aggregated")
        ready(second)
        if release == NEWEST["dynamo"]:
            until(made.told, "the frontend's runner tells it", START)
            assert REJECTED in made.frontend.text()
        else:
            for _ in range(4):
                assert chat(made.port, TOKENS)[0] == 200
            assert not made.told() and REJECTED not in made.frontend.text()


def test_a_rejected_worker_serves_once_it_is_alone(tmp_path: Path) -> None:
    with deployment(tmp_path, NEWEST["dynamo"]) as made:
        ready(made.start("second", "aggregated", another(tmp_path)))
        until(made.told, "the frontend's runner tells it", START)
        made.worker.signal(15)
        assert made.worker.wait(60) == 0, made.worker.text()
        until(lambda: chat(made.port, TOKENS)[0] == 200, "the second worker serves", START)
