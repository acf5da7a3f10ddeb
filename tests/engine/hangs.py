"""What the tests of engines that hang have in common."""

from __future__ import annotations

import re

from tests.support.runner import Runner

END = 150.0
"""Seconds from the fault within which a container is over: 47 with the real limits, on two free cores."""
FAULTS = {"CPU_ENGINE_FAULTS": "1"}
SOON = FAULTS | {"GLM47_HANG_UNREADY": "4", "GLM47_HANG_TIMEOUT": "10"}
SCHEDULER = "sglang::scheduler"


def ends_with(runner: Runner, code: int, reason: str, deadline: float = END) -> None:
    """The runner ends like this."""
    assert runner.wait(deadline) == code, runner.text()
    print(runner.lines[-1])
    assert re.search(reason, runner.lines[-1]), runner.lines[-1]
