"""Asks about what a person gave. Where nobody gave anything, a start neither imports nor waits for this."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from entrypoint.plan.types import Plan, Process

if TYPE_CHECKING:
    from entrypoint.prepare.parser.ask import Questions


def asked(plan: Plan, environ: Mapping[str, str]) -> contextlib.AbstractContextManager[Questions | None]:
    """The parsers begin to read those command lines that have something on them that a person gave.

    What the runner plans by itself is tried with every release that it knows, before it is published.
    """
    processes = tuple(process for process in plan.processes if _is_given(plan, process))
    if not processes:
        return contextlib.nullcontext()
    from entrypoint.prepare.parser.ask import Questions

    return Questions(replace(plan, processes=processes), environ)


def accepted(plan: Plan, questions: Questions | None) -> Plan:
    """`plan`, once its parsers have read it. Raises ConfigError (78) with all that they refuse."""
    if questions is None:
        return plan
    from entrypoint.prepare.parser.for_plan import must_accept

    return must_accept(plan, questions)


def _is_given(plan: Plan, process: Process) -> bool:
    """By an argument or by a setting."""
    origins = (plan.settings.get(name) for name in process.settings.values())
    return any(origin is not None and origin.origin != "default" for origin in origins)
