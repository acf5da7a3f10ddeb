"""What is known of each process, what can be done about it, and how a run ends. Data only."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import Enum

from entrypoint.errors import ExitCode
from entrypoint.plan.types import Gate, Process
from entrypoint.supervise.lifecycle.endings import Ending
from entrypoint.supervise.lifecycle.looks import Requests, Stuck


class State(str, Enum):
    """Process state: whether it runs. Health (`Proc.ready`) is told apart from it."""

    WAITING = "waiting"
    RUNNING = "running"
    LEFTOVERS = "leftovers"
    """The process itself has ended, members of its group or its orphans live."""
    BACKOFF = "backoff"
    DRAINING = "draining"
    """Not ready any more, and waiting for its last requests before the stop signal."""
    STOPPING = "stopping"
    ENDED = "ended"


@dataclass(frozen=True)
class Spawn:
    """Start the process."""

    name: str


@dataclass(frozen=True)
class Signal:
    """Send the stop signal: to the process, or to all it left behind once it has ended."""

    name: str
    signal: str
    everything: bool = False


@dataclass(frozen=True)
class Drain:
    """Watch the process's requests in flight."""

    name: str


@dataclass(frozen=True)
class Kill:
    """KILL the whole group and the adopted orphans."""

    name: str


@dataclass(frozen=True)
class Unlist:
    """Take the worker off the list that frontends choose from: it answers nothing any more."""

    name: str


@dataclass(frozen=True)
class Say:
    """A line for the person who reads the log."""

    text: str


Action = Spawn | Signal | Drain | Kill | Unlist | Say


@dataclass
class Proc:
    """What is known of one process."""

    spec: Process
    state: State = State.WAITING
    ready: bool = False
    why: str = "not started"
    """Why it is not ready."""
    pid: int | None = None
    spawned_at: float | None = None
    ready_at: float | None = None
    """When it turned ready for the first time in this life."""
    unlisted_since: float | None = None
    """Since when a frontend answers without listing the model; None: it does, or does not answer."""
    last_sign: float = 0.0
    """Last sign of progress while it is not ready."""
    exit_code: int | None = None
    restarts: int = 0
    """Restarts in a row, without RESTART_RESET seconds of readiness between them."""
    restarts_total: int = 0
    start_again_at: float | None = None
    drain_until: float | None = None
    kill_at: float | None = None
    killed: bool = False
    broken: bool = False
    """It runs, but answers nothing any more: it hangs, or a process is dead that it cannot do without."""
    answers: bool = False
    """What its probe said last."""
    stuck: Stuck | None = None
    """Why it is not ready although its probe says it is: it does not get on."""
    requests: Requests | None = None
    """What it last said of its requests."""
    suspected: bool = False
    """Its requests wait unanswered, so far without a consequence."""
    recycling: bool = False
    """Stopped by us only to be started again at once."""
    recycles: int = 0
    """How often in a row that was done in vain."""
    phase: str = ""
    verdict: Verdict | None = None
    """How the run ends at `verdict_at`, unless it is asked to stop before."""
    verdict_at: float | None = None

    @property
    def may_finish(self) -> bool:
        """It has something to finish before its stop signal, and can."""
        waits = self.spec.drain is not None or self.spec.leader_hold is not None
        return waits and self.ready_at is not None and not self.broken

    @property
    def still(self) -> str:
        """What it goes on with while it drains, in words."""
        return "still answers requests" if self.spec.drain is not None else "still has its leader"

    @property
    def registered(self) -> bool:
        """It is on a list from which others choose it."""
        return self.spec.drain is not None and self.spec.drain.withdraw is not None

    @property
    def may_be_cut_off(self) -> bool:
        """It has never been ready and puts the stop signal off while it loads: a KILL loses nothing."""
        return self.ready_at is None and self.spec.loading_grace is not None

    @property
    def alive(self) -> bool:
        """Anything of it may still be running."""
        return self.state in (State.RUNNING, State.DRAINING, State.LEFTOVERS, State.STOPPING)


@dataclass
class GateState:
    """What is known of a server outside this container."""

    spec: Gate
    open: bool = False
    why: str = "not asked yet"


@dataclass(frozen=True)
class Verdict:
    """How `run` ends."""

    code: int
    reason: str


@dataclass(frozen=True)
class Clues:
    """What the last lines of a process's log say of its end."""

    hint: str = ""
    """A known cause and its remedy in brackets, with a space before it; empty: none is known."""
    lost_rank: str | None = None
    """Address of another rank of the same worker whose connection broke."""
    ending: Ending = Ending.UNKNOWN
    """Why it killed itself, if it says so."""


NO_CLUES = Clues()


def lost(name: str, code: int, clues: Clues = NO_CLUES) -> Verdict:
    """The end that a critical process causes by leaving with `code` unasked."""
    if clues.lost_rank is not None:
        return _rank_lost(name, clues.lost_rank, f"{name} ended because of that: {describe_code(code)}")
    hint = clues.hint
    if code == 0:
        return Verdict(ExitCode.FAILURE, f"{name} left with 0 although nobody had asked it to{hint}")
    return Verdict(code, f"{name} ended: {describe_code(code)}{hint}")


@dataclass(frozen=True)
class Dead:
    """A vital process of a supervised one that is dead while that one goes on."""

    title: str
    pid: int
    code: int | None
    """Its exit code, 128+n for signal n; None: it was reaped before we looked."""


def broken(name: str, dead: Dead, clues: Clues = NO_CLUES) -> Verdict:
    """The end that a critical process causes by going on without a vital process of its own."""
    how = "how it ended is not known" if dead.code is None else describe_code(dead.code)
    what = f"{dead.title} (pid {dead.pid})"
    # One that a signal ended is a cause of its own; one that left follows from what it met.
    if clues.lost_rank is not None and (dead.code or 0) < 128:
        return _rank_lost(name, clues.lost_rank, f"its process {what} ended because of that: {how}")
    reason = f"{name} cannot go on: its process {what} is dead: {how}{clues.hint}"
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
