"""How a run ends: its exit code and its reason in words, by what brought the end about."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from entrypoint.errors import ExitCode
from entrypoint.supervise.lifecycle.endings import Ending
from entrypoint.supervise.lifecycle.looks import Stuck


@dataclass(frozen=True)
class Verdict:
    """How `run` ends."""

    code: int
    reason: str


@dataclass(frozen=True)
class Dead:
    """A vital process of a supervised one that is dead."""

    title: str
    pid: int
    code: int | None
    """Its exit code, 128+n for signal n; None: it was reaped before we looked."""

    @property
    def how(self) -> str:
        """`sglang::detokenizer (pid 12) was dead before: killed by SIGKILL (137)`."""
        return f"{self.title} (pid {self.pid}) was dead before: {self.end}"

    @property
    def end(self) -> str:
        """How it ended, in words."""
        return "how it ended is not known" if self.code is None else describe_code(self.code)


@dataclass(frozen=True)
class Clues:
    """What the last lines of a process's log say of its end."""

    hint: str = ""
    """A known cause and its remedy in brackets, with a space before it; empty: none is known."""
    lost_rank: str | None = None
    """Address of another rank of the same worker whose connection broke."""
    ending: Ending = Ending.UNKNOWN
    """Why it killed itself, if it says so."""
    dead: Dead | None = None
    """A vital process of its own that was dead before it ended."""
    unusable: Verdict | None = None
    """How the run ends where it ended for its data, which it would find again."""


NO_CLUES = Clues()


def lost(name: str, code: int, clues: Clues = NO_CLUES) -> Verdict:
    """The end that a critical process causes by leaving with `code` unasked."""
    if clues.lost_rank is not None:
        return _rank_lost(name, clues.lost_rank, f"{name} ended because of that: {describe_code(code)}")
    why = clues.hint
    if clues.dead is not None:
        why = f": its process {clues.dead.how}{why}"
    if code == 0:
        return Verdict(ExitCode.FAILURE, f"{name} left with 0 although nobody had asked it to{why}")
    return Verdict(code, f"{name} ended: {describe_code(code)}{why}")


def broken(name: str, dead: Dead, clues: Clues = NO_CLUES) -> Verdict:
    """The end that a critical process causes by going on without a vital process of its own."""
    what = f"{dead.title} (pid {dead.pid})"
    # One that a signal ended is a cause of its own; one that left follows from what it met.
    if clues.lost_rank is not None and (dead.code or 0) < 128:
        return _rank_lost(name, clues.lost_rank, f"its process {what} ended because of that: {dead.end}")
    reason = f"{name} cannot go on: its process {what} is dead: {dead.end}{clues.hint}"
    return Verdict(dead.code or ExitCode.FAILURE, reason)


def _rank_lost(name: str, address: str, consequence: str) -> Verdict:
    reason = f"{name} lost the rank at {address} of its worker: see that node's log; {consequence}"
    return Verdict(ExitCode.PEER_LOST, reason)


def hung(name: str, stuck: Stuck) -> Verdict:
    """The end that a critical process causes by not getting on."""
    reason = f"{name} hangs: {stuck} (GLM47_HANG_TIMEOUT): start it again"
    return Verdict(ExitCode.TEMPFAIL, reason)


def describe_code(code: int) -> str:
    """An exit code in words: 137 is ``killed by SIGKILL (137)``."""
    if code > 128:
        try:
            return f"killed by {signal.Signals(code - 128).name} ({code})"
        except ValueError:
            pass
    return f"exit code {code}"
