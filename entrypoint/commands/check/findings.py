"""What a check says: findings, and how people read them. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from entrypoint.base.printable import clean
from entrypoint.errors import ExitCode, RunnerError


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: str
    """`ok`, `warning` or `problem`."""
    text: str
    exit_code: int = 0
    """What `run` would end with because of it, or because of what follows from it."""


def ok(what: str, text: str) -> Finding:
    """It is as it should be."""
    return Finding(what, "ok", text)


def warning(what: str, text: str) -> Finding:
    """`run` starts all the same."""
    return Finding(what, "warning", text)


def problem(what: str, text: str, code: ExitCode = ExitCode.CONFIG) -> Finding:
    """`run` would not work; `code` is what it would end with."""
    return Finding(what, "problem", text, int(code))


def outcome(what: str, good: str, action: Callable[[], object]) -> list[Finding]:
    """`good`, or what `action` raises."""
    try:
        action()
    except RunnerError as error:
        return [problem(what, line, error.exit_code) for line in str(error).splitlines()]
    return [ok(what, good)]


def render(findings: list[Finding]) -> str:
    """The findings as lines, and a verdict."""
    width = max(len(f.what) for f in findings)
    lines = [f"{f.state:7}  {f.what:{width}}  {f.text}" for f in findings]
    problems = sum(f.state == "problem" for f in findings)
    verdict = (
        f"{problems} problem{'s' * (problems != 1)}: `run` would not work" if problems else "`run` can start"
    )
    return "\n".join(map(clean, [*lines, verdict]))
