"""The planner: what it gives comes back, and it never speaks for the runner, however it ends."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest

from entrypoint.errors import ConfigError, PlannerLostError
from entrypoint.run import aside as module
from entrypoint.run.aside import aside
from tests.support.runner import ROOT, alive, until
from tests.support.stack import COMMAND, free_ports


def nothing() -> None:
    """What the parent does meanwhile."""


def locked(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


@pytest.mark.parametrize("size", [0, 10, 1 << 16, 5 << 20])
def test_the_value_and_the_lock_outlive_the_child(size: int, tmp_path: Path) -> None:
    value, descriptor = aside(lambda: (b"x" * size, locked(tmp_path / "lock")), nothing)
    assert value == b"x" * size
    assert not os.get_inheritable(descriptor), "a child that outlived the runner would hold the lock"
    with (tmp_path / "lock").open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)

    def free() -> bool:
        with (tmp_path / "lock").open() as other, suppress(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    until(free, "the lock is free, once the child has gone too")


def raises(error: BaseException) -> NoReturn:
    raise error


def test_its_error_is_raised_here() -> None:
    with pytest.raises(ConfigError, match="a problem"):
        aside(lambda: raises(ConfigError("a problem")), nothing)


def test_what_cannot_be_passed_on_is_said() -> None:
    with pytest.raises(RuntimeError, match="cannot be passed on"):
        aside(lambda: (lambda: None, 0), nothing)


def hurt_myself(signum: int) -> tuple[None, int]:
    """Get a signal, or leave with -`signum`."""
    if signum < 0:
        os._exit(-signum)
    os.kill(os.getpid(), signum)
    time.sleep(1000)
    return None, 0


@pytest.mark.parametrize(
    ("signum", "words"),
    [(signal.SIGKILL, "killed by SIGKILL"), (-3, "exit code 3"),
     (signal.SIGSTOP, "is stopped by a signal")],
)  # fmt: skip
def test_a_planner_that_is_lost_is_named(signum: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOPPED", 0.2)
    monkeypatch.setattr(module, "LOOK", 0.05)
    with pytest.raises(PlannerLostError, match=words) as error:
        aside(lambda: hurt_myself(signum), nothing)
    assert error.value.exit_code == 75


def test_a_planner_that_waits_for_ever_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK", 0.05)
    with pytest.raises(PlannerLostError, match=r"no plan after 0 s: .* file systems"):
        aside(lambda: hurt_myself(0), nothing, longest=0.3)


def test_it_goes_with_its_runner(tmp_path: Path) -> None:
    code = (
        "import os, time; from pathlib import Path; from entrypoint.run.aside import aside\n"
        "def plan():\n"
        f"    Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid())); time.sleep(1000)\n"
        "aside(plan, lambda: None)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as runner:
        pid = int(until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "a planner"))
        runner.kill()
        runner.wait()
    until(lambda: not alive(pid), "the planner is gone")


def test_it_goes_with_its_runner_when_it_is_stopped_first(tmp_path: Path) -> None:
    """The first time that it waits for a file, an import's, it is the kernel's already to end."""
    code = (
        "import os, signal, sys; from pathlib import Path; from entrypoint.run.aside import aside\n"
        "runner = os.getpid()\n"
        "def hook(event, arguments):\n"
        "    if event in ('import', 'open') and os.getpid() != runner:\n"
        "        os.kill(os.getpid(), signal.SIGSTOP)\n"
        f"file = os.open({str(tmp_path / 'pid')!r}, os.O_WRONLY | os.O_CREAT)\n"
        "os.register_at_fork(after_in_child=lambda: os.write(file, str(os.getpid()).encode()))\n"
        "sys.addaudithook(hook)\n"
        "def plan():\n    import this\n"
        "aside(plan, lambda: None)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as runner:
        pid = int(until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "a planner"))
        until(lambda: ") T " in Path(f"/proc/{pid}/stat").read_text(), "it is stopped")
        runner.kill()
        runner.wait()
    until(lambda: not alive(pid), "the planner is gone")


@pytest.mark.parametrize("everyone", [False, True], ids=["the runner", "all of its group"])
@pytest.mark.parametrize("moment", [0.02 * n for n in range(1, 14)])
def test_a_stop_while_the_plan_is_made_is_a_stop(moment: float, everyone: bool, tmp_path: Path) -> None:
    """Slurm tells every process of a step, others only the first. `moment`: seconds after the start."""
    logs, reason = tmp_path / "logs", tmp_path / "reason"
    logs.mkdir()
    env = {
        **os.environ, **free_ports(), "ROLE": "nats", "SLURM_JOB_ID": "7", "GLM47_LOG_DIR": str(logs),
        "GLM47_TERMINATION_LOG": str(reason), "GLM47_RUN_DIR": str(tmp_path / "run"),
    }  # fmt: skip
    runner = subprocess.Popen(
        [COMMAND, "run"], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    time.sleep(moment)
    (os.killpg if everyone else os.kill)(runner.pid, signal.SIGTERM)
    output = runner.communicate(timeout=30)[0].decode()
    # Python itself takes the first hundredths: nobody listens yet.
    assert runner.returncode in (0, -signal.SIGTERM), output
    assert "Traceback" not in output
    assert not (logs / "failure").exists()
    assert not reason.exists() or reason.read_text().startswith("asked to stop by SIGTERM")


def test_a_stop_ends_a_planner_that_is_stopped(tmp_path: Path) -> None:
    """SIGSTOP reaches it before it can ask the kernel to end it with its runner."""
    code = (
        "import os, signal, time; from pathlib import Path; from entrypoint.run import aside\n"
        "def leave(*_):\n"
        "    aside.give_up(); os._exit(0)\n"
        "signal.signal(signal.SIGTERM, leave)\n"
        "os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGSTOP))\n"
        "aside.aside(lambda: (0, 0), lambda: None)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as runner:
        task = Path(f"/proc/{runner.pid}/task/{runner.pid}/children")
        planner = int(until(lambda: task.read_text().strip(), "a planner"))
        until(
            lambda: Path(f"/proc/{planner}/stat").read_text().rpartition(")")[2].split()[0] == "T", "stopped"
        )
        runner.terminate()
        assert runner.wait(20) == 0
    until(lambda: not alive(planner), "the planner is gone")
