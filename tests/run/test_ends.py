"""Ends in odd places: what is no file where one is written, and too few of what a process takes."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.plans import plan, process
from tests.support.runner import ROOT, Runner, until


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
