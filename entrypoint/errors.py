"""Exit codes and the errors that carry them.

Every error a user can meet is a `RunnerError` with one line in one voice,
``cannot …: <value>: <what to do>``, and the exit code `run` ends with.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

from entrypoint.base.printable import clean, without_passwords


class ExitCode(IntEnum):
    """Exit codes of `run`; a process that died by signal n adds 128+n, its own code otherwise."""

    OK = 0
    """Asked to stop, and stopped in time."""
    FAILURE = 1
    """A critical process left with 0 although nobody had asked; smoke and bench: a check failed."""
    USAGE = 2
    """The command line was wrong."""
    MODEL = 66
    """The model is missing or broken."""
    UNAVAILABLE = 69
    """A server that this container needs, or that others need of it, never answered."""
    SOFTWARE = 70
    """A fault of the runner itself."""
    CANTCREAT = 73
    """Something that must be written cannot be, or the source to patch is not recognised."""
    TEMPFAIL = 75
    """The start-up deadline passed or the start stalled: try again."""
    PEER_LOST = 76
    """A peer rank of the same worker was lost: try again."""
    CONFIG = 78
    """Bad configuration."""


class RunnerError(Exception):
    """Base of every expected error: one line for a person, one exit code for the orchestrator."""

    exit_code: ExitCode = ExitCode.SOFTWARE
    termination_log: str | None = None
    """Where else the line goes, once the plan that says so is known."""

    def __str__(self) -> str:
        return "\n".join(without_passwords(clean(line)) for line in super().__str__().split("\n"))


class ConfigError(RunnerError):
    """Bad configuration (78). Carries every problem found, so that one start reports them all."""

    exit_code = ExitCode.CONFIG

    def __init__(self, problems: str | Iterable[str]) -> None:
        given = (problems,) if isinstance(problems, str) else tuple(problems)
        self.problems: tuple[str, ...] = tuple(without_passwords(clean(line)) for line in given)
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[tuple[str, ...]], dict[str, object]]:
        return type(self), (self.problems,), self.__dict__


class SpareTaskError(RunnerError):
    """Nothing is to be done here, and that is no failure (0): a Slurm node with fewer workers than others."""

    exit_code = ExitCode.OK


class ModelError(RunnerError):
    """The model directory is missing or broken (66)."""

    exit_code = ExitCode.MODEL


class CannotWriteError(RunnerError):
    """A file that must be written cannot be (73)."""

    exit_code = ExitCode.CANTCREAT


class PatchError(RunnerError):
    """The source to patch is not recognised or cannot be written (73)."""

    exit_code = ExitCode.CANTCREAT


class PlannerLostError(RunnerError):
    """The process that makes the plan was killed, is stopped, or does not come to an end (75)."""

    exit_code = ExitCode.TEMPFAIL


class NobodyListensError(RunnerError):
    """Nobody listens at an address that a person gave (69)."""

    exit_code = ExitCode.UNAVAILABLE


class CheckFailedError(RunnerError):
    """A smoke test, probe or check looked at a running deployment and was not satisfied (1)."""

    exit_code = ExitCode.FAILURE


MORE_MEMORY = "give the container more memory, and start again"
MORE_PROCESSES = "raise the limit of processes (ulimit -u, pids.max), and start again"
SHORTAGES: dict[int, tuple[ExitCode, str]] = {
    errno.EMFILE: (ExitCode.CONFIG, "raise the limit of open files (ulimit -n)"),
    errno.ENFILE: (ExitCode.TEMPFAIL, "the node has no open file left: start again, elsewhere"),
    errno.ENOMEM: (ExitCode.TEMPFAIL, MORE_MEMORY),
    errno.EAGAIN: (ExitCode.TEMPFAIL, MORE_PROCESSES),
    errno.ENOSPC: (ExitCode.CANTCREAT, "make room on that file system"),
    errno.EDQUOT: (ExitCode.CANTCREAT, "make room, or raise the quota"),
}
"""By errno: the exit code of a container that lacks what every process takes, and what to do."""


class Shortage(NamedTuple):
    """What is lacking, in one line, and the exit code."""

    code: ExitCode
    reason: str


def shortage(error: BaseException) -> Shortage | None:
    """What the machine lacks, where that is what `error` is about; None: it is a fault of another kind."""
    if isinstance(error, MemoryError):
        return Shortage(ExitCode.TEMPFAIL, f"cannot go on: no memory is left: {MORE_MEMORY}")
    text = str(error)
    # The loader of shared objects, and threads, tell it in words only.
    if isinstance(error, ImportError) and ("failed to map segment" in text or "allocate memory" in text):
        return Shortage(ExitCode.TEMPFAIL, f"cannot go on: {text}: {MORE_MEMORY}")
    if isinstance(error, RuntimeError) and "can't start new thread" in text:
        return Shortage(
            ExitCode.TEMPFAIL,
            f"cannot start a thread: {text}: give the container more memory, or raise its "
            "limit of processes (ulimit -u, pids.max), and start again",
        )
    if isinstance(error, OSError) and error.errno in SHORTAGES:
        code, remedy = SHORTAGES[error.errno]
        where = f"{error.filename}: " if error.filename else ""
        return Shortage(code, f"cannot go on: {where}{error.strerror}: {remedy}")
    return None
