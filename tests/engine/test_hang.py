"""Engines that live and do not get on: found, named and ended; and those that only look so, left alone.

One test keeps the real limits, 10 s to not ready and 40 s to the end; the others have shorter ones.
"""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

from tests.engine.stacks import Stack, asking
from tests.support import cpu_engine
from tests.support.cpu_engine.shim.faults import SPIN
from tests.support.runner import Runner, free_port, until
from tests.support.stack import free_ports

UNREADY, END = 15.0, 60.0
"""Seconds from the fault within which, with the real limits, a worker is not ready and its container over."""
FAULTS = {"CPU_ENGINE_FAULTS": "1"}
SOON = FAULTS | {"GLM47_HANG_UNREADY": "4", "GLM47_HANG_TIMEOUT": "10"}
SCHEDULER = "sglang::scheduler"


def ends_with(runner: Runner, code: int, reason: str, deadline: float = END) -> None:
    """The runner ends like this."""
    assert runner.wait(deadline) == code, runner.text()
    print(runner.lines[-1])
    assert re.search(reason, runner.lines[-1]), runner.lines[-1]


def test_the_innocent_are_left_alone_and_a_stopped_one_is_not(
    tmp_path: Path, model: Path, release: str
) -> None:
    slow = SOON | {"CPU_ENGINE_SLOW_FIRST": "25"}
    with Stack(tmp_path / "run", model, "single", release=release, spins=True, **slow) as stack:
        # Its first request takes far longer than any limit, with nothing to be seen but a busy scheduler.
        runner = stack.ready().runner
        began, answered = (float(runner.wait_for(rf"runner +\| {name} is ready after ").split()[-2])
                           for name in ("aggregated", "frontend"))  # fmt: skip
        assert answered > 20, (began, answered)
        assert not any("not ready any more" in line for line in runner.lines)
        # It stands still for less than its time.
        (pid,) = stack.pids(SCHEDULER)
        with asking(stack, tokens=600) as request:
            os.kill(pid, signal.SIGSTOP)
            until(lambda: runner.get("/readyz")[0] == 503, "not ready")
            assert "is stopped by a signal" in runner.status_of("aggregated")["why"]
            os.kill(pid, signal.SIGCONT)
            until(lambda: runner.get("/readyz")[0] == 200, "ready again")
        assert "answer" in request, request
        # It has nothing to do.
        quiet = time.monotonic() + 20
        until(lambda: time.monotonic() > quiet or runner.get("/readyz")[0] != 200, "time has passed", 30)
        assert runner.get("/readyz")[0] == 200
        os.kill(pid, signal.SIGSTOP)
        ends_with(runner, 75, r"aggregated hangs: its process sglang::scheduler \(pid \d+\) is stopped")


def test_a_worker_that_spins_and_the_frontend_of_another_container(
    tmp_path: Path, model: Path, release: str
) -> None:
    """With the real limits. The frontend asks the runner beside its worker: on 127.0.0.2, the same port."""
    both = FAULTS | {"GLM47_DISCOVERY": "file", "DYN_FILE_KV": str(tmp_path / "store")}
    both["GLM47_HEALTH_PORT"] = str(free_port())
    far = dict.fromkeys(("GLM47_HEALTH_HOST", "SGLANG_HOST_IP", "DYN_TCP_RPC_HOST"), "127.0.0.2")
    near = dict.fromkeys(("GLM47_HEALTH_HOST", "DYN_TCP_RPC_HOST"), "127.0.0.1")
    worker = Stack(tmp_path / "worker", model, "aggregated", release=release, **both, **far)
    with worker, Stack(tmp_path / "frontend", model, "frontend", release=release, **both, **near) as front:
        asked = front.ready().runner
        (pid,) = worker.pids(SCHEDULER)
        with asking(front, metrics_of=worker):
            began = time.monotonic()
            os.kill(pid, SPIN)
            worker.runner.wait_for("aggregated is not ready any more", UNREADY)
            print(f"the worker is not ready after {time.monotonic() - began:.1f} s")
            until(lambda: asked.get("/readyz")[0] == 503, "the frontend is not ready")
            print(f"the frontend is not ready after {time.monotonic() - began:.1f} s")
            why = asked.status_of("frontend")["why"]
            assert why.startswith("none of its backend workers is ready: 127.0.0.2: its process"), why
            reason = r"aggregated hangs: its process sglang::scheduler \(pid \d+\) spins with 1 request"
            ends_with(worker.runner, 75, reason, END - (time.monotonic() - began))
            print(f"the worker's container is over after {time.monotonic() - began:.1f} s")

        def delisted() -> bool:
            code, body = asked.get("/readyz")
            assert code == 503, "ready without a worker"
            return "0 of 1 backend" in str(body)

        until(delisted, "the worker is not listed any more", 30)


def ask_in_vain(stack: Stack) -> None:
    try:
        cpu_engine.greedy(stack.url, ["abc"], timeout=90)
    except (OSError, cpu_engine.RefusedError):
        return


def test_a_stopped_follower_is_named_by_its_own_runner_and_lost_to_its_leader(
    tmp_path: Path, model: Path, release: str
) -> None:
    """Two nodes, 127.0.0.1 and 127.0.0.2, of one rank each; not under Slurm, where each asks the other."""
    both = SOON | {
        "GLM47_NNODES": "2", "GLM47_LEADER_ADDRESS": "127.0.0.1", "GLM47_TP": "2", "GLM47_DISCOVERY": "file",
        "DYN_FILE_KV": str(tmp_path / "store"), "GLM47_DIST_INIT_PORT": free_ports()["GLM47_DIST_INIT_PORT"],
    }  # fmt: skip

    def rank(number: int) -> Stack:
        address = dict.fromkeys(("SGLANG_HOST_IP", "DYN_TCP_RPC_HOST"), f"127.0.0.{number + 1}")
        more = both | address | {"GLM47_NODE_RANK": str(number)}
        return Stack(tmp_path / f"rank{number}", model, "aggregated", release=release, **more)

    with rank(0) as leader, rank(1) as follower:
        leader.ready()
        (pid,) = follower.ready().pids(SCHEDULER)
        os.kill(pid, signal.SIGSTOP)
        stopped = r"aggregated hangs: its process sglang::scheduler_TP1 \(pid \d+\) is stopped by a signal"
        ends_with(follower.runner, 75, stopped)
        ends_with(
            leader.runner, 76, r"aggregated lost the rank at 127\.0\.0\.\d of its worker: see that node"
        )
