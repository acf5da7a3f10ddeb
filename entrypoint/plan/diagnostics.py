"""What planning has to say of a deployment. Checks return it; the planner collects it, and nobody else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Level(str, Enum):
    """What follows from a diagnostic."""

    PROBLEM = "problem"
    """Nothing can be planned: all of them together are one ConfigError (78)."""
    UNMET = "unmet"
    """This machine cannot carry the plan out: `run` and `check` end with 78, `plan` only says so."""
    WARNING = "warning"
    NOTE = "note"
    """A decision worth knowing, with its reason."""


@dataclass(frozen=True)
class Diagnostic:
    """One line for people."""

    level: Level
    text: str


Diagnostics = tuple[Diagnostic, ...]


def problem(text: str) -> Diagnostic:
    """``cannot …: <value>: <what to do>``."""
    return Diagnostic(Level.PROBLEM, text)


def unmet(text: str) -> Diagnostic:
    """The same, of this machine."""
    return Diagnostic(Level.UNMET, text)


def warning(text: str) -> Diagnostic:
    """It works, but perhaps not as wanted."""
    return Diagnostic(Level.WARNING, text)


def note(text: str) -> Diagnostic:
    """What was decided, and why."""
    return Diagnostic(Level.NOTE, text)


def problems(texts: Iterable[str]) -> Diagnostics:
    """A problem for each text."""
    return tuple(map(problem, texts))


def texts(found: Iterable[Diagnostic], level: Level) -> tuple[str, ...]:
    """The lines of one level, each once, in their order."""
    return tuple(dict.fromkeys(one.text for one in found if one.level is level))
