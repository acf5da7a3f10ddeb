"""Stops of one engine: while it loads, and with what is dead."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.engine.stacks import START, Stack
from tests.engine.stops import DRAINS, STOP, ended
from tests.engine.streams import Stream
from tests.support.runner import until


def test_a_stop_while_it_loads_does_not_wait_for_the_engine(
    release: str, model: Path, tmp_path: Path
) -> None:
    """`dynamo.sglang` looks at the signal once it is up: up to 20 minutes later, with the real weights."""
    with Stack(tmp_path / "run", model, "single", release=release) as stack:
        runner = stack.runner
        until(lambda: stack.pids("sglang::scheduler") or None, "a scheduler", START)
        assert runner.get("/startupz")[0] == 503
        began = time.monotonic()
        runner.signal(signal.SIGTERM)
        ended(runner, 0, began)
        assert not any("aggregated is ready" in line for line in runner.lines)


@pytest.mark.engine_more
def test_an_engine_without_its_scheduler_is_not_waited_for(release: str, model: Path, tmp_path: Path) -> None:
    """It would wait for the scheduler's answer for ever, and so would the frontend."""
    patient = {"GLM47_STOP_TIMEOUT": str(4 * STOP)}
    with Stack(tmp_path / "run", model, "single", release=release, **patient) as stack:
        runner = stack.ready().runner
        request = Stream(stack.url, 3000).under_way()
        began = time.monotonic()
        runner.signal(signal.SIGTERM)
        runner.wait_for("stopping: asked")
        os.kill(stack.pids("sglang::scheduler")[0], signal.SIGKILL)
        ended(runner, 137, began)
        assert "asked to stop by SIGTERM; aggregated" in runner.lines[-1]
        assert request.ended()


@pytest.mark.engine_more
def test_an_engine_that_somebody_kills_in_the_stop_did_not_stop(
    release: str, model: Path, tmp_path: Path
) -> None:
    """As the kernel does for want of memory."""
    with Stack(tmp_path / "run", model, "single", release=release, **DRAINS) as stack:
        runner = stack.ready().runner
        request = Stream(stack.url, 3000).under_way()
        began = time.monotonic()
        runner.signal(signal.SIGTERM)
        runner.wait_for("stopping: asked")
        os.kill(runner.status_of("aggregated")["pid"], signal.SIGKILL)
        ended(runner, 137, began)
        assert "asked to stop by SIGTERM; aggregated" in runner.lines[-1]
        assert request.ended()
