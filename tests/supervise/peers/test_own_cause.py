"""A rank whose process was killed: peers notice first, and its own runner names the cause all the same."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from entrypoint.plan.roles.sglang import VITAL
from tests.support.jobs import job, node
from tests.support.plans import plan, process
from tests.support.runner import ROOT, Runner, free_port, until

EVERY = 0.8
"""Seconds between two looks at an engine's own processes; six must find one dead: later than the peers do."""
ENGINE = 30.0
"""Seconds that a stand-in engine goes on without its scheduler."""


def two_looks(file: Path) -> None:
    """Wait until the lookout has looked twice more: what is there now is known then."""

    def count() -> int:
        return file.stat().st_size if file.exists() else 0

    before = count()
    until(lambda: count() > before + 1, "two looks at the engine")


@contextmanager
def worker(tmp_path: Path) -> Iterator[tuple[list[Runner], list[int]]]:
    """A leader and a follower with stand-in engines, ready, and the pids of their schedulers."""
    ports = [free_port(), free_port()]
    with ExitStack() as stack:
        runners = []
        for number, port in enumerate(ports):
            titles = (f"sglang::scheduler_TP{number}", "sglang::detokenizer")
            command = (
                sys.executable,
                "-m",
                "tests.support.standin_engine",
                "--linger",
                f"{ENGINE:g}",
                *titles,
            )
            spec = process("decode", argv=command, cwd=str(ROOT), vital=VITAL)
            made = plan(spec, health_port=port, rank=number, nnodes=2, job=job(number, ports))
            directory = tmp_path / node(number)
            directory.mkdir()
            looks = {"TEST_LOOKS": str(directory / "looks"), "TEST_LOOKS_EVERY": f"{EVERY:g}"}
            runners.append(stack.enter_context(Runner.of_plan(made, directory, env=looks)))
        pids = [
            int(runner.wait_for(f"decode | sglang::scheduler_TP{number} pid").split()[-1])
            for number, runner in enumerate(runners)
        ]
        for number, runner in enumerate(runners):
            runner.wait_for("| ready after")
            two_looks(tmp_path / node(number) / "looks")
        yield runners, pids


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSEGV])
def test_who_has_a_killed_process_of_its_own_blames_no_peer(signum: signal.Signals, tmp_path: Path) -> None:
    with worker(tmp_path) as ((leader, follower), pids):
        os.kill(pids[1], signum)
        os.kill(leader.status_of("decode")["pid"], signal.SIGKILL)  # as SGLang does with a rank that is lost
        assert follower.wait() == 128 + signum, follower.text()
        assert leader.wait() == 137
        assert f"its process sglang::scheduler_TP1 (pid {pids[1]}) is dead: killed by" in follower.lines[-1]


def test_who_has_none_names_the_peer(tmp_path: Path) -> None:
    with worker(tmp_path) as ((leader, follower), _):
        os.kill(leader.status_of("decode")["pid"], signal.SIGKILL)
        assert follower.wait() == 76, follower.text()
        assert f"lost decode worker 0 rank 0 on {node(0)}" in follower.lines[-1]


def test_an_engine_that_kills_its_own_before_itself_names_the_peer(tmp_path: Path) -> None:
    with worker(tmp_path) as ((leader, follower), pids):
        main = follower.status_of("decode")["pid"]
        os.kill(leader.status_of("decode")["pid"], signal.SIGKILL)
        leader.wait_for("decode ended: killed by SIGKILL")
        os.kill(pids[1], signal.SIGKILL)
        os.kill(main, signal.SIGKILL)
        code = follower.wait()
        assert "scheduler_TP1" not in follower.lines[-1], follower.text()
        assert code in (76, 137), follower.text()
