"""A prefill and a decode worker are replaced in turn, each in a container of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from entrypoint.commands.smoke import pd
from entrypoint.commands.smoke.questions import smoke
from entrypoint.plan.own_questions import MARK
from tests.engine.stacks import START, Stack
from tests.support.cpu_engine import greedy
from tests.support.runner import free_port, until


class Deployment:
    """etcd, a prefill worker, a decode worker and a frontend, a runner for each."""

    def __init__(self, directory: Path, model: Path, release: str) -> None:
        self.directory, self.model, self.release = directory, model, release
        self.shared = {
            "GLM47_HEAD_ADDRESS": "127.0.0.1",
            "GLM47_PREFILL_WORKERS": "1",
            "GLM47_DECODE_WORKERS": "1",
            "GLM47_HTTP_PORT": str(free_port()),
            "GLM47_ETCD_PORT": str(free_port()),
            "GLM47_NATS_PORT": str(free_port()),
            "GLM47_BOOTSTRAP_PORT": str(free_port()),
            "GLM47_NATS_MONITOR_PORT": str(free_port()),
        }
        self.stacks: dict[str, Stack] = {}
        self.lives = 0

    def start(self, *roles: str) -> None:
        for role in roles:
            self.lives += 1
            where = self.directory / f"{role.partition(',')[0]}-{self.lives}"
            stack = Stack(where, self.model, role, release=self.release, **self.shared)
            self.stacks[role.partition(",")[0]] = stack.__enter__()

    def lose(self, role: str) -> None:
        """Its engine is killed, and its container ends."""
        runner = self.stacks[role].runner
        os.kill(runner.status_of(role)["pid"], signal.SIGKILL)
        assert runner.wait(30) == 137, runner.text()

    def frontend_ready(self) -> bool:
        return self.stacks["frontend"].runner.get("/readyz")[0] == 200

    def wait_for_frontend(self) -> None:
        try:
            until(self.frontend_ready, "the frontend is ready", START)
        except AssertionError:
            for stack in self.stacks.values():
                print("\n".join(stack.runner.lines[-12:]))
            raise

    def close(self) -> None:
        """End them all, frontend first, without leaving an engine behind on a busy machine."""
        stacks = [*reversed(self.stacks.values())]
        for stack in stacks:
            stack.runner.signal(signal.SIGTERM)
        for stack in stacks:
            with suppress(subprocess.TimeoutExpired):
                stack.runner.wait(60)
            stack.__exit__(None, None, None)


@pytest.fixture(scope="module")
def deployment(release: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    made = Deployment(tmp_path_factory.mktemp("replaced"), model, release)
    try:
        made.start("etcd,nats", "prefill", "decode", "frontend")
        made.wait_for_frontend()
        yield made
    finally:
        made.close()


def test_it_answers(deployment: Deployment, asked: list[str], right: list[str]) -> None:
    assert greedy(deployment.stacks["frontend"].url, asked) == right
    assert "first tokens after" in deployment.stacks["frontend"].runner.text()


def test_prefill_and_decode_did_their_parts(deployment: Deployment) -> None:
    runners = [f"127.0.0.1:{deployment.stacks[r].runner.health_port}" for r in ("prefill", "decode")]
    workers = pd.find(runners, str, "http://{}".format)
    assert [worker.role for worker in workers] == ["prefill", "decode"]
    report = smoke(deployment.stacks["frontend"].url, workers=workers)
    # A model of random words says special tokens now and then, which are no answer of a real one.
    random = re.compile("which ends a message|</think>")
    odd = [check for check in report.checks if not check.ok and not random.search(check.detail)]
    assert not odd, report.table()
    assert report.checks[-1].detail.startswith("nixl: ")


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_a_replaced_worker_has_answered_the_frontend_before_it_is_ready_again(
    deployment: Deployment, role: str, asked: list[str], right: list[str]
) -> None:
    frontend = deployment.stacks["frontend"]
    deployment.lose(role)
    until(lambda: not deployment.frontend_ready(), "the frontend is not ready", 60)
    before = len(frontend.runner.lines)
    deployment.start(role)
    deployment.wait_for_frontend()
    said = f"a new {role} worker is listed.*first tokens after.*frontend is ready again"
    until(
        lambda: re.search(said, "\n".join(frontend.runner.lines[before:]), re.DOTALL), "it has said all three"
    )
    assert greedy(frontend.url, asked) == right


def test_nobody_s_log_has_lines_about_the_runners_questions(deployment: Deployment) -> None:
    for stack in deployment.stacks.values():
        text = stack.runner.text()
        assert MARK not in text
        assert "tower_http::trace::on_failure" not in text
        # `smoke` has asked for the models once; any other GET here would be the runner's.
        asked = [line for line in stack.runner.lines if "http response sent" in line and "=POST" not in line]
        assert len(asked) <= 1 and all("/v1/models" in line for line in asked), asked[:3]
