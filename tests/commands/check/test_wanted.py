"""What a check holds the machine to is what the engine is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from entrypoint.commands.check.wanted import wanted
from entrypoint.settings.origin import Origin
from tests.plan.deployments import HEAD, NEWER, Container, build


@pytest.mark.parametrize(
    ("settings", "memory"),
    [
        ({}, 0.85),
        ({"profile": "balanced"}, 0.9),
        ({"mem_fraction": 0.7}, 0.7),
        ({"extra_args": "--mem-fraction-static=0.6"}, 0.6),
    ],
)
def test_memory_is_that_of_the_command_line(settings: dict[str, Any], memory: float) -> None:
    plan = build(Container({"role": "decode", **HEAD, **settings}, facts=NEWER))
    plan = replace(plan, settings={"GLM47_GPUS_PER_NODE": Origin(4, "default")})
    assert wanted(plan, {}).memory == memory
