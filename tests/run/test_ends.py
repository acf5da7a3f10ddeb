"""Ends in odd places: what is no file where one is written, and too few of what a process takes."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from entrypoint.errors import shortage
from tests.support.plans import plan, process
from tests.support.runner import ROOT, Runner, until
from tests.support.stack import COMMAND, free_ports


def test_a_fifo_for_a_termination_log_keeps_nobody(tmp_path: Path) -> None:
    fifo = tmp_path / "reason"
    os.mkfifo(fifo)
    with Runner.of_plan(plan(process("a"), termination_log=str(fifo)), tmp_path) as runner:
        until(lambda: runner.get("/readyz")[0] == 200, "ready")
        runner.signal(signal.SIGTERM)
        assert runner.wait() == 0


def test_a_fifo_that_is_read_gets_the_reason(tmp_path: Path) -> None:
    fifo = tmp_path / "reason"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with Runner.of_plan(plan(process("a", argv=("false",)), termination_log=str(fifo)), tmp_path) as runner:
        assert runner.wait() == 1
    assert os.read(reader, 999).decode().startswith("a ended: exit code 1")
    os.close(reader)


@pytest.mark.parametrize("name", ["a.log", "runner.log"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["FIFO", "directory"])
def test_what_is_no_file_in_the_log_directory_is_refused(
    name: str, make: Callable[[Path], None], tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    make(logs / name)
    with Runner.of_plan(plan(process("a"), log_dir=str(logs)), tmp_path) as runner:
        assert runner.wait() == 73
    assert "cannot write the logs" in runner.lines[-1] and name in runner.lines[-1]


NO_DESCRIPTOR_LEFT = """
import contextlib, os
from entrypoint.supervise.child import Child, SpawnError
from tests.support.plans import process
write = os.open(os.devnull, os.O_WRONLY)
child = Child(process("a"))
with contextlib.suppress(OSError):
    while True:
        os.dup(write)
try:
    child.launch(write, {})
except SpawnError as error:
    print(int(error.code), error)
"""


def test_too_few_descriptors_are_named() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_DESCRIPTOR_LEFT], cwd=ROOT, capture_output=True, text=True, timeout=60,
        check=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
    )  # fmt: skip
    assert done.stdout.startswith("78 cannot start a: ")
    assert "Too many open files: raise the limit of open files (ulimit -n)" in done.stdout


def test_an_environment_that_is_too_long_is_named(tmp_path: Path) -> None:
    p = plan(process("a", env={"LONG": "x" * (200 << 10)}))
    with Runner.of_plan(p, tmp_path) as runner:
        assert runner.wait() == 78
    assert "cannot start a" in runner.lines[-1] and "GLM47_EXTRA_ARGS" in runner.lines[-1]


DESCRIPTORS = {
    "closed output": ">&-",
    "closed error": "2>&-",
    "both closed": ">&- 2>&-",
    "all closed": "<&- >&- 2>&-",
    "full output": ">/dev/full",
    "full error": "2>/dev/full",
    "both full": ">/dev/full 2>&1",
    "read only": ">/dev/null 2</dev/null",
}
"""What a shell may make of a command's standard descriptors."""


@pytest.mark.parametrize("redirection", DESCRIPTORS.values(), ids=DESCRIPTORS)
def test_nobody_to_tell_it_to_changes_no_exit_code(redirection: str, tmp_path: Path) -> None:
    reason = tmp_path / "reason"
    env = {**os.environ, "ROLE": "nats", "GLM47_STOP_TIMEOUT": "nan", "GLM47_TERMINATION_LOG": str(reason)}
    done = subprocess.run(["bash", "-c", f'"$0" run {redirection}', COMMAND], env=env, timeout=60)
    assert done.returncode == 78
    assert reason.read_text().startswith("cannot use GLM47_STOP_TIMEOUT: 'nan'")


@pytest.mark.parametrize("redirection", DESCRIPTORS.values(), ids=DESCRIPTORS)
def test_a_run_goes_on_where_nobody_reads(redirection: str, tmp_path: Path) -> None:
    p = plan(process("a", argv=("sh", "-c", "echo it; exit 9")), termination_log=str(tmp_path / "reason"))
    file = tmp_path / "plan.pickle"
    file.write_bytes(pickle.dumps(dataclasses.replace(p, run_dir=str(tmp_path / "run"))))
    script = f'exec "$0" -m tests.support.run_plan "$1" {redirection}'
    done = subprocess.run(["bash", "-c", script, sys.executable, str(file)], cwd=ROOT, timeout=60)
    assert done.returncode == 9
    assert (tmp_path / "reason").read_text() == "a ended: exit code 9\n"


def test_an_error_that_nobody_reads_keeps_nobody(tmp_path: Path) -> None:
    """A full pipe, as where a log collector hangs."""
    read, write = os.pipe2(os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write, b"x" * 4096)
    os.set_blocking(write, True)
    env = {**os.environ, "ROLE": "nats", "GLM47_STOP_TIMEOUT": "nan"}
    done = subprocess.run([COMMAND, "run"], env=env, stdout=write, stderr=write, timeout=60)
    assert done.returncode == 78
    os.close(read)
    os.close(write)


SHORT = {
    "memory": (MemoryError(), 75, "give the container more memory"),
    "memory of the kernel": (OSError(errno.ENOMEM, "Cannot allocate memory"), 75, "more memory"),
    "a shared object": (ImportError("x.so: failed to map segment from shared object"), 75, "more memory"),
    "threads": (RuntimeError("can't start new thread"), 75, "ulimit -u"),
    "processes": (OSError(errno.EAGAIN, "Resource temporarily unavailable"), 75, "ulimit -u"),
    "descriptors": (OSError(errno.EMFILE, "Too many open files", "/proc"), 78, "ulimit -n"),
    "descriptors of the node": (OSError(errno.ENFILE, "Too many open files in system"), 75, "elsewhere"),
    "room": (OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), 73, "make room"),
    "quota": (OSError(errno.EDQUOT, "Disk quota exceeded", "/tmp/x"), 73, "quota"),
}


@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize("where", ["while planning", "while starting"])
def test_what_the_machine_lacks_is_no_fault_of_the_runner(name: str, where: str, tmp_path: Path) -> None:
    error, code, words = SHORT[name]
    made = f"pickle.loads({pickle.dumps(error)!r})"
    script = (
        "import os, pickle\nfrom entrypoint.run import start\nfrom entrypoint.load import Loaded\n"
        "def fail(*_):\n"
        f"    raise {made}\n"
        f"if {where == 'while starting'}:\n"
        "    start.supervise = fail\n"
        "    from tests.support.plans import plan\n"
        f"    start.become(lambda: Loaded(plan(run_dir={str(tmp_path / 'run')!r}), {{}}), os.environ)\n"
        "start.become(fail, os.environ)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code, done.stderr
    assert words in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


def test_a_fault_of_the_runner_is_called_one() -> None:
    assert all(
        shortage(error) is None for error in (OSError("x"), RuntimeError("x"), ImportError("No module x"))
    )


@pytest.mark.parametrize("limit", [8, 10, 12])
def test_a_limit_of_descriptors_that_is_too_low_is_named(limit: int, tmp_path: Path) -> None:
    reason = tmp_path / "reason"
    env = {
        **os.environ, **free_ports(), "ROLE": "nats", "GLM47_RUN_DIR": str(tmp_path / "run"),
        "GLM47_TERMINATION_LOG": str(reason),
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-c", f'ulimit -n {limit}; exec "$0" run', COMMAND], env=env, capture_output=True, timeout=60
    )
    assert done.returncode == 78, done.stderr
    assert "raise the limit of open files (ulimit -n)" in reason.read_text()


def catches(pid: int, signum: int) -> bool:
    """Whether process `pid` has a handler for `signum` (proc_pid_status(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    mask = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
    return bool(mask >> (signum - 1) & 1)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
@pytest.mark.parametrize("moment", [0.0, 0.05, 0.15, 0.4])
def test_every_signal_that_asks_to_stop_does_so_from_the_first_moment(
    signum: int, moment: float, tmp_path: Path
) -> None:
    """`moment`: seconds after the runner's first line of code; before it Python itself has the signal."""
    env = {**os.environ, **free_ports(), "ROLE": "nats", "GLM47_RUN_DIR": str(tmp_path / "run")}
    runner = subprocess.Popen([COMMAND, "run"], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    until(lambda: catches(runner.pid, signal.SIGHUP), "its handlers")
    time.sleep(moment)
    runner.send_signal(signum)
    output = runner.communicate(timeout=30)[0].decode()
    assert runner.returncode == 0, output
    assert "Traceback" not in output and f"asked to stop by {signal.Signals(signum).name}" in output


@pytest.mark.parametrize(
    ("word", "signum", "code"),
    [
        *(("run", each, 0) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)),
        ("plan", signal.SIGTERM, 128 + signal.SIGTERM),
    ],
)
def test_a_signal_before_the_first_line_of_code_is_kept(
    word: str, signum: signal.Signals, code: int, tmp_path: Path
) -> None:
    """It comes while the interpreter starts, and blocked, as the image starts it."""
    env = {**os.environ, **free_ports(), "ROLE": "nats", "GLM47_RUN_DIR": str(tmp_path / "run")}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signum})
    try:
        runner = subprocess.Popen([COMMAND, word], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        runner.send_signal(signum)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    output = runner.communicate(timeout=30)[0].decode()
    assert runner.returncode == code, output
    assert output == f"glm47-runner: asked to stop by {signum.name} before anything was started\n"
