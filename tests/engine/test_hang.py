"""Engines that live and do not get on: found, named and ended; and those that only look so, left alone.

The limits are shorter than the real ones (test_hang_limits.py).
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.engine.hangs import END, SCHEDULER, SOON, ends_with
from tests.engine.stacks import Stack, asking
from tests.support.runner import until
from tests.support.stack import free_ports


def test_the_innocent_are_left_alone_and_a_stopped_one_is_not(
    tmp_path: Path, model: Path, release: str
) -> None:
    slow = SOON | {"CPU_ENGINE_SLOW_FIRST": "18"}
    with Stack(tmp_path / "run", model, "single", release=release, spins=True, **slow) as stack:
        # Its first request takes far longer than any limit, with nothing to be seen but a busy scheduler.
        runner = stack.ready().runner
        began, answered = (float(runner.wait_for(f"runner | {name} is ready after ").split()[-2])
                           for name in ("aggregated", "frontend"))  # fmt: skip
        assert answered > 15, (began, answered)
        assert not any("not ready any more" in line for line in runner.lines)
        # It stands still for less than its time.
        (pid,) = stack.pids(SCHEDULER)
        with asking(stack, tokens=600) as request:
            os.kill(pid, signal.SIGSTOP)
            until(lambda: runner.get("/readyz")[0] == 503, "not ready", END)
            assert "is stopped by a signal" in runner.status_of("aggregated")["why"]
            os.kill(pid, signal.SIGCONT)
            until(lambda: runner.get("/readyz")[0] == 200, "ready again", END)
        assert "answer" in request, request
        # It has nothing to do.
        quiet = time.monotonic() + 15
        until(lambda: time.monotonic() > quiet or runner.get("/readyz")[0] != 200, "time has passed", 30)
        assert runner.get("/readyz")[0] == 200
        parent = runner.status_of("aggregated")["pid"]
        os.kill(parent, signal.SIGSTOP)
        ends_with(runner, 75, rf"aggregated hangs: its process \S+ \(pid {parent}\) is stopped")


@pytest.mark.engine_more
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
