"""A process of the engine is killed while it answers."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.engine.stacks import Stack, asking
from tests.support.runner import alive

END = 30.0
"""Seconds from the kill until the container has ended: a death is sure after 12, then it has 5 to go."""


@pytest.mark.parametrize("victim", ["sglang::scheduler", "sglang::detokenizer"])
def test_its_container_ends_with_137(release: str, model: Path, tmp_path: Path, victim: str) -> None:
    """Named in the last line; the client is not left waiting, and no process is left."""
    with Stack(tmp_path / "run", model, "single", release=release) as stack:
        runner = stack.ready().runner
        parent = runner.status_of("aggregated")["pid"]
        (pid,) = stack.pids(victim)
        processes = [parent, *stack.pids("sglang::")]
        with asking(stack) as request:
            began = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            assert runner.wait(END) == 137, runner.text()
            print(f"over after {time.monotonic() - began:.1f} s: {runner.lines[-1]}")
        assert "error" in request
        assert victim in runner.lines[-1], runner.lines[-1]
        assert not [pid for pid in processes if alive(pid)]
