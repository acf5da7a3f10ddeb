"""One of two workers is stopped, or dies, while requests come, with Dynamo's own frontend and stores."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from entrypoint.commands.demo.model import make_demo_model
from tests.support.runner import Runner, until
from tests.support.stack import ask, chat, free_ports, run

pytestmark = pytest.mark.stack
LONG = 400
"""Tokens of an answer that is under way when its worker is asked to stop."""


class Deployment:
    """NATS, perhaps etcd, and a frontend in one container; two mockers in one each."""

    def __init__(self, tmp_path: Path, store: str, stack: ExitStack) -> None:
        ports = free_ports()
        shared = {k: ports[k] for k in ("GLM47_ETCD_PORT", "GLM47_NATS_PORT")} | {
            "GLM47_ENGINE": "mocker",
            "GLM47_MODEL_PATH": str(make_demo_model(tmp_path / "models" / "glm")),
            "GLM47_HEAD_ADDRESS": "127.0.0.1",
            "GLM47_DECODE_WORKERS": "2",
            "DYN_TCP_RPC_HOST": "127.0.0.1",
            "GLM47_STOP_TIMEOUT": "120",
        }
        if store == "file":
            shared |= {"GLM47_DISCOVERY": "file", "DYN_FILE_KV": str(tmp_path / "store")}
        servers = "nats" if store == "file" else "etcd,nats"

        def start(name: str, role: str) -> Runner:
            more = free_ports() | shared
            self.port = more["GLM47_HTTP_PORT"]
            return stack.enter_context(run(tmp_path / name, ROLE=role, **more))

        self.start = start
        self.servers = start("servers", servers)
        self.workers = [start(name, "aggregated") for name in ("a", "b")]
        self.frontend = start("frontend", "frontend")
        for runner in (*self.workers, self.frontend):
            ready(runner)

    def listed(self) -> int:
        """Workers that the frontend knows."""
        _, health = ask(self.port, "/health")
        instances = health.get("instances") or () if isinstance(health, dict) else ()
        return sum(1 for i in instances if i["endpoint"] == "generate")


def ready(runner: Runner) -> None:
    until(lambda: runner.get("/readyz")[0] == 200 or runner.process.poll() is not None, "ready", 90)
    assert runner.process.poll() is None, runner.text()


@contextmanager
def load(port: str) -> Iterator[list[tuple[int, Any]]]:
    """Short requests, two at a time; what came of each."""
    over, done = threading.Event(), list[tuple[int, Any]]()

    def go() -> None:
        while not over.is_set():
            done.append(chat(port, 4))

    threads = [threading.Thread(target=go) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield done
    finally:
        over.set()
        for thread in threads:
            thread.join()


def tokens(answer: tuple[int, Any]) -> int:
    code, body = answer
    assert code == 200, body
    return int(body["usage"]["completion_tokens"])


@pytest.mark.parametrize("store", ["etcd", "file"])
def test_no_request_fails_when_one_is_stopped(tmp_path: Path, store: str) -> None:
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        deployment = Deployment(tmp_path, store, stack)
        assert deployment.listed() == 2
        first, second = deployment.workers
        with load(deployment.port) as short:
            long = [pool.submit(chat, deployment.port, LONG) for _ in range(4)]
            until(lambda: len(short) > 4, "answers")
            first.signal(signal.SIGTERM)
            until(lambda: deployment.listed() == 1, "off the frontend's list")
            assert first.process.poll() is None, "it is off the list before it is gone"
            assert first.wait(60) == 0, first.text()
            begun = len(short)
            until(lambda: len(short) > begun + 4, "answers by the other one")
        assert [tokens(answer) for answer in short] == [4] * len(short)
        assert [tokens(future.result(60)) for future in long] == [LONG] * 4
        assert "nothing new comes in" in first.text()
        for runner in (deployment.frontend, second, deployment.servers):
            runner.signal(signal.SIGTERM)
            assert runner.wait(60) == 0, runner.text()


@pytest.mark.parametrize("store", ["etcd", "file"])
def test_one_that_is_killed_is_off_the_list_before_its_lease_ends(tmp_path: Path, store: str) -> None:
    with ExitStack() as stack:
        deployment = Deployment(tmp_path, store, stack)
        os.kill(deployment.workers[0].status_of("aggregated")["pid"], signal.SIGKILL)
        assert deployment.workers[0].wait(30) == 137
        assert "aggregated is off the list" in deployment.workers[0].text()
        until(lambda: deployment.listed() == 1, "one worker, well before the 10 s of a lease", 3)


@pytest.mark.parametrize("store", ["etcd", "file"])
def test_one_that_is_killed_with_its_runner_is_off_the_list_once_it_starts_anew(
    tmp_path: Path, store: str
) -> None:
    """As for want of memory: nobody was left to take it off, and a lease or a key lasts for 10 s."""
    with ExitStack() as stack:
        deployment = Deployment(tmp_path, store, stack)
        dead = deployment.workers[0]
        engine = dead.status_of("aggregated")["pid"]
        dead.process.kill()
        os.kill(engine, signal.SIGKILL)
        dead.wait(30)
        port = deployment.port
        again = deployment.start("a", "aggregated")
        deployment.port = port
        again.wait_for("aggregated started with pid")
        again.wait_for("what ran here before as aggregated is off the list", 5)
        ready(again)
        until(lambda: deployment.listed() == 2, "both", 10)
