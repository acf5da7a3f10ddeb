"""Engines that live and do not get on, at the real pace: 10 s to not ready, 40 s to the end."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.engine.stacks import Stack, asking
from tests.support.cpu_engine.shim.faults import BLOCK, SPIN
from tests.support.runner import free_port, until
from tests.support.stack import free_ports

UNREADY, END = 15.0, 60.0
"""Seconds from the fault within which the worker must be not ready, and its container over."""
SCHEDULER, DETOKENIZER = "sglang::scheduler", "sglang::detokenizer"


class Fault:
    """What became of a runner after a fault: seconds to not ready and to the end, code and last line."""

    def __init__(self, stack: Stack, began: float) -> None:
        runner = stack.runner
        until(lambda: runner.get("/readyz")[0] != 200, "not ready", UNREADY + 5)
        self.unready = time.monotonic() - began
        self.code = runner.wait(END + 10)
        self.end = time.monotonic() - began
        self.reason = runner.lines[-1]
        print(
            f"not ready after {self.unready:.1f} s, over after {self.end:.1f} s, {self.code}: {self.reason}"
        )

    def is_hang(self, reason: str) -> None:
        """It ended in time, with 75 and a reason like this."""
        assert self.unready <= UNREADY and self.end <= END
        assert self.code == 75 and re.search(reason, self.reason), self.reason


def single(directory: Path, model: Path, release: str, **settings: str) -> Stack:
    settings = {"CPU_ENGINE_FAULTS": "1"} | settings
    return Stack(directory / "run", model, "single", release=release, **settings)


@pytest.mark.parametrize(
    ("title", "signum", "busy", "reason"),
    [
        (SCHEDULER, signal.SIGSTOP, False, r"sglang::scheduler \(pid \d+\) is stopped by a signal"),
        (SCHEDULER, SPIN, True, r"sglang::scheduler \(pid \d+\) spins with 1 request without an answer"),
        (SCHEDULER, BLOCK, True, r"sglang::scheduler \(pid \d+\) waits in futex\S* with 1 request"),
        (DETOKENIZER, signal.SIGSTOP, True, r"sglang::detokenizer \(pid \d+\) is stopped by a signal"),
    ],
    ids=["stopped, idle", "spins", "blocked", "detokenizer stopped"],
)
def test_a_worker_that_does_not_get_on_ends_with_75(
    tmp_path: Path, model: Path, release: str, title: str, signum: int, busy: bool, reason: str
) -> None:
    with single(tmp_path, model, release) as stack:
        (pid,) = stack.ready().pids(title)
        if not busy:
            os.kill(pid, signum)
            Fault(stack, time.monotonic()).is_hang(reason)
            return
        with asking(stack) as request:
            os.kill(pid, signum)
            Fault(stack, time.monotonic()).is_hang(reason)
        assert "error" in request


def test_one_that_goes_on_in_time_is_ready_again(tmp_path: Path, model: Path, release: str) -> None:
    """And so is one that has been idle for longer than any limit, and one whose first request takes 60 s."""
    slow = {"CPU_ENGINE_SLOW_FIRST": "60"}
    with single(tmp_path, model, release, **slow) as stack:
        runner = stack.ready().runner
        lines = "\n".join(runner.lines)
        assert float(re.findall(r"runner +\| ready after ([\d.]+) s", lines)[0]) > 60
        assert "not ready any more" not in lines and "hangs" not in lines
        (pid,) = stack.pids(SCHEDULER)
        with asking(stack, tokens=600) as request:
            os.kill(pid, signal.SIGSTOP)
            until(lambda: runner.get("/readyz")[0] == 503, "not ready", UNREADY)
            assert "is stopped by a signal" in runner.status_of("aggregated")["why"]
            os.kill(pid, signal.SIGCONT)
            until(lambda: runner.get("/readyz")[0] == 200, "ready again", UNREADY)
        assert "answer" in request, request
        quiet = time.monotonic() + 60
        until(lambda: runner.get("/readyz")[0] != 200 or time.monotonic() > quiet, "a minute has passed", 70)
        assert runner.get("/readyz")[0] == 200


def test_a_frontend_whose_worker_hangs_is_not_ready(tmp_path: Path, model: Path, release: str) -> None:
    """Of another container: it asks the runner beside its worker, 127.0.0.2 here, on its own health port."""
    store = {"GLM47_DISCOVERY": "file", "DYN_FILE_KV": str(tmp_path / "store"), "CPU_ENGINE_FAULTS": "1"}
    store["GLM47_HEALTH_PORT"] = str(free_port())
    far = {"GLM47_HEALTH_HOST": "127.0.0.2", "SGLANG_HOST_IP": "127.0.0.2", "DYN_TCP_RPC_HOST": "127.0.0.2"}
    worker = Stack(tmp_path / "worker", model, "aggregated", release=release, **store, **far)
    near = {"GLM47_HEALTH_HOST": "127.0.0.1", "DYN_TCP_RPC_HOST": "127.0.0.1"}
    with worker, Stack(tmp_path / "frontend", model, "frontend", release=release, **store, **near) as front:
        front.ready()
        (pid,) = worker.pids(SCHEDULER)
        with asking(front, metrics_of=worker):
            began = time.monotonic()
            os.kill(pid, SPIN)
            until(lambda: front.runner.get("/readyz")[0] == 503, "the frontend is not ready", 20)
            print(f"the frontend is not ready after {time.monotonic() - began:.1f} s")
            why = front.runner.status_of("frontend")["why"]
            assert why.startswith("none of its backend workers is ready: 127.0.0.2: its process"), why
            assert worker.runner.wait(END) == 75

        def delisted() -> bool:
            code, body = front.runner.get("/readyz")
            assert code == 503, "ready, without a worker"
            return "0 of 1 backend" in str(body)

        until(delisted, "its worker is not listed any more", 30)


@contextmanager
def two_nodes(tmp_path: Path, model: Path, release: str) -> Iterator[tuple[Stack, Stack, Stack]]:
    """Leader and follower of one worker with two ranks, at 127.0.0.1 and 127.0.0.2, and a frontend."""
    ports = free_ports()
    common = {
        "CPU_ENGINE_FAULTS": "1", "GLM47_NNODES": "2", "GLM47_LEADER_ADDRESS": "127.0.0.1", "GLM47_TP": "2",
        "GLM47_DISCOVERY": "file", "DYN_FILE_KV": str(tmp_path / "store"), "DYN_STORE_KV": "file",
        "GLM47_DIST_INIT_PORT": ports["GLM47_DIST_INIT_PORT"],
    }  # fmt: skip

    def rank(number: int) -> Stack:
        address = dict.fromkeys(("SGLANG_HOST_IP", "DYN_TCP_RPC_HOST"), f"127.0.0.{number + 1}")
        more = common | address | {"GLM47_NODE_RANK": str(number)}
        return Stack(tmp_path / f"rank{number}", model, "aggregated", release=release, **more)

    with rank(0) as leader, rank(1) as follower:
        leader.ready()
        follower.ready()
        frontend = {k: v for k, v in common.items() if k.startswith(("GLM47_DISCOVERY", "DYN_"))}
        frontend |= {"DYN_TCP_RPC_HOST": "127.0.0.1", "GLM47_HEAD_ADDRESS": "127.0.0.1"}
        with Stack(tmp_path / "frontend", model, "frontend", release=release, **frontend) as front:
            yield leader, follower, front.ready()


def test_a_stopped_follower_ends_its_container(tmp_path: Path, model: Path, release: str) -> None:
    with two_nodes(tmp_path, model, release) as (_, follower, _front):
        (pid,) = follower.pids(SCHEDULER)
        os.kill(pid, signal.SIGSTOP)
        Fault(follower, time.monotonic()).is_hang(r"sglang::scheduler_TP1 \(pid \d+\) is stopped")


def test_a_leader_names_the_lost_follower(tmp_path: Path, model: Path, release: str) -> None:
    with two_nodes(tmp_path, model, release) as (leader, follower, _front):
        (pid,) = follower.pids(SCHEDULER)
        os.kill(pid, signal.SIGKILL)
        assert follower.runner.wait(30) == 137
        assert "sglang::scheduler_TP1" in follower.runner.lines[-1]
        assert leader.runner.wait(30) == 76, leader.runner.text()
        assert re.search(r"lost the rank at 127\.0\.0\.\d of its worker", leader.runner.lines[-1])
