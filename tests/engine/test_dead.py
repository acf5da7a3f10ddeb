"""A process of the engine is killed while it answers, or stopped."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.engine.stacks import Stack, asking
from tests.support.runner import alive, until

END = 60.0
"""Seconds from the kill within which the container is over: a death is sure after 12, then it has 5 to go."""
SCHEDULER, DETOKENIZER = "sglang::scheduler", "sglang::detokenizer"
UNKNOWN = {("0.5.14", DETOKENIZER)}
"""The engine takes its exit status, goes on, and does not tell: nobody knows how it ended."""
MORE = pytest.mark.engine_more


def process(stack: Stack, title: str) -> int:
    """The one process of the worker with this title; `aggregated` is its parent."""
    if title == "aggregated":
        return int(stack.runner.status_of("aggregated")["pid"])
    (pid,) = stack.pids(title)
    return pid


@pytest.mark.parametrize(
    ("victim", "named"),
    [
        pytest.param(SCHEDULER, SCHEDULER, id="scheduler"),
        pytest.param(DETOKENIZER, DETOKENIZER, id="detokenizer", marks=MORE),
        pytest.param("aggregated", "aggregated ended: killed by SIGKILL", id="parent", marks=MORE),
    ],
)
def test_its_container_ends_with_its_code(
    release: str, model: Path, tmp_path: Path, victim: str, named: str
) -> None:
    """Named in the last line; the client is not left waiting, and no process is left."""
    code = 1 if (release, victim) in UNKNOWN else 137
    with Stack(tmp_path / "run", model, "single", release=release) as stack:
        runner = stack.ready().runner
        processes = [process(stack, "aggregated"), *stack.pids("sglang::")]
        with asking(stack) as request:
            began = time.monotonic()
            os.kill(process(stack, victim), signal.SIGKILL)
            assert runner.wait(END) == code, runner.text()
            print(f"over after {time.monotonic() - began:.1f} s: {runner.lines[-1]}")
        assert "error" in request
        assert named in runner.lines[-1], runner.lines[-1]
        assert not [pid for pid in processes if alive(pid)]


@MORE
@pytest.mark.parametrize("victim", [SCHEDULER, DETOKENIZER, "aggregated"])
def test_one_that_is_stopped_ends_its_container_with_75(
    release: str, model: Path, tmp_path: Path, victim: str
) -> None:
    """Idle; with the real limits, 10 s to not ready and 40 s to the end."""
    with Stack(tmp_path / "run", model, "single", release=release) as stack:
        runner = stack.ready().runner
        pid = process(stack, victim)
        processes = [process(stack, "aggregated"), *stack.pids("sglang::")]
        began = time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        until(lambda: runner.get("/readyz")[0] == 503, "not ready", 60)
        print(f"not ready after {time.monotonic() - began:.1f} s")
        assert runner.wait(120) == 75, runner.text()
        print(f"over after {time.monotonic() - began:.1f} s: {runner.lines[-1]}")
        assert f"(pid {pid}) is stopped by a signal" in runner.lines[-1], runner.lines[-1]
        assert not [pid for pid in processes if alive(pid)]
