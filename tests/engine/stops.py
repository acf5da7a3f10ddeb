"""What the tests of stops have in common."""

from __future__ import annotations

import time

from tests.support.runner import Runner

LONG = 800
STOP = 150.0
"""Seconds within which a container that may drain for 120 has ended."""
DRAINS = {"GLM47_STOP_TIMEOUT": "120"}


def ended(runner: Runner, code: int, began: float) -> None:
    """It ends with `code`; the seconds since `began` are printed."""
    assert runner.wait(STOP) == code, runner.text()
    print(f"over after {time.monotonic() - began:.1f} s with {code}: {runner.lines[-1]}")
