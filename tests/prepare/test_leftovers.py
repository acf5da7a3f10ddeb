"""What a killed runner left is ended by the next start in its run directory: that, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from entrypoint.prepare import leftovers, run_dir
from entrypoint.prepare.leftovers import RUNNER
from tests.support.plans import plan, process
from tests.support.runner import ROOT, Runner, alive, until

FAMILIES = {
    "a child": "sleep 1000 & echo $! >{0}; wait",
    "one that ignores signals": "(trap '' TERM INT HUP; while :; do sleep 0.1; done) & echo $! >{0}; wait",
    "one in a session of its own": "setsid sh -c 'echo $$ >{0}; exec sleep 1000' & wait",
    "one that is stopped": "sleep 1000 & echo $! >{0}; kill -STOP $!; wait",
    "a grandchild": "sh -c 'sleep 1000 & echo $! >{0}; wait' & wait",
}
"""Shell programs that leave a process whose pid is in a file."""


@pytest.mark.parametrize("name", FAMILIES)
def test_the_next_start_ends_what_a_killed_runner_left(name: str, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    family = plan(process("family", argv=("sh", "-c", FAMILIES[name].format(file))))
    with Runner.of_plan(family, tmp_path) as first:
        left = int(until(lambda: file.exists() and file.read_text().strip(), "its child"))
        first.wait_for("family is ready")
        first.process.kill()
        first.wait()
    assert alive(left), "this test shows nothing"
    with Runner.of_plan(plan(process("another")), tmp_path) as second:
        line = second.wait_for("the runner before was killed and had left, now ended:")
        assert f"(pid {left})" in line
        until(lambda: not alive(left), "it is gone")
        until(lambda: second.get("/readyz")[0] == 200, "ready")
        second.signal(signal.SIGTERM)
        assert second.wait() == 0


def test_a_run_that_ended_leaves_nothing_to_look_for(tmp_path: Path) -> None:
    with Runner.of_plan(plan(process("a", argv=("false",))), tmp_path) as runner:
        assert runner.wait() == 1
    assert (tmp_path / "run" / run_dir.LOCK).read_text() == ""


COPIES = """
import os, signal, subprocess, sys, time
from entrypoint.prepare import run_dir
lock, _ = run_dir.lock(sys.argv[1], os.getpid())
for _ in range(int(sys.argv[2])):
    if (pid := os.fork()) == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    print(pid, flush=True)
time.sleep(1000)
"""


def holding(run: Path, copies: int) -> tuple[subprocess.Popen[str], list[int]]:
    """Something like a runner that has the lock, and that many stopped copies of it."""
    run.mkdir()
    command = [sys.executable, "-c", COPIES, str(run), str(copies)]
    runner = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert runner.stdout is not None
    pids = [int(runner.stdout.readline()) for _ in range(copies)]
    for pid in pids:
        until(lambda pid=pid: ") T " in Path(f"/proc/{pid}/stat").read_text(), "it is stopped")  # type: ignore[misc]
    return runner, pids


@pytest.mark.parametrize("copies", [1, 3])
def test_copies_that_were_stopped_before_their_exec_do_not_keep_the_run_directory(
    copies: int, tmp_path: Path
) -> None:
    """The kernel does not know yet that they should end with their runner."""
    runner, pids = holding(tmp_path / "run", copies)
    runner.kill()
    runner.wait()
    assert all(alive(pid) for pid in pids), "this test shows nothing"
    with Runner.of_plan(plan(process("another")), tmp_path) as second:
        second.wait_for("another is ready")
        assert not any(alive(pid) for pid in pids)
        second.signal(signal.SIGTERM)
        assert second.wait() == 0


def test_copies_of_a_living_runner_are_its_own(tmp_path: Path) -> None:
    runner, pids = holding(tmp_path / "run", 2)
    try:
        with Runner.of_plan(plan(process("another")), tmp_path) as second:
            assert second.wait() == 78
        assert f"another runner (pid {runner.pid}) uses it" in second.lines[-1]
        assert all(alive(pid) for pid in pids)
    finally:
        for pid in (runner.pid, *pids):
            os.kill(pid, signal.SIGKILL)
        runner.wait()


def test_only_the_same_identity_counts(tmp_path: Path) -> None:
    """Not the name, not the beginning of the identity, not who is above us."""
    mine, others = leftovers.identity(), [leftovers.identity(), "1", ""]
    assert len({mine, *others}) == 4
    running = [
        subprocess.Popen(["sleep", "1000"], env={**os.environ, RUNNER: value})
        for value in (*others, mine[:-1], mine + "0")
    ]
    wanted = subprocess.Popen(["sleep", "1000"], env={**os.environ, RUNNER: mine})
    try:
        until(lambda: Path(f"/proc/{wanted.pid}/comm").read_text() == "sleep\n", "its exec")
        assert leftovers.end(mine) == [f"sleep (pid {wanted.pid})"]
        assert wanted.wait(10) == -signal.SIGKILL
        assert all(other.poll() is None for other in running)
    finally:
        for other in running:
            other.kill()
            other.wait()


def test_a_start_from_within_an_old_run_spares_itself() -> None:
    mine = leftovers.identity()
    script = f"from entrypoint.prepare import leftovers; print(leftovers.end({mine!r}))"
    nested = ["sh", "-c", 'python3=$1; shift; "$python3" "$@"; true', "sh", sys.executable, "-c", script]
    done = subprocess.run(
        nested, env={**os.environ, RUNNER: mine}, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "[]\n", done
