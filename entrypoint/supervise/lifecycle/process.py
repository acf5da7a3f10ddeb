"""What is known of each process and of each server outside. Data; written by this folder alone."""

from __future__ import annotations

from dataclasses import dataclass, field

from entrypoint.plan.types import Gate, Process
from entrypoint.supervise.lifecycle.looks import Requests, Stuck
from entrypoint.supervise.lifecycle.states import ALIVE, ALLOWED, State
from entrypoint.supervise.lifecycle.verdicts import Verdict


class ImpossibleError(Exception):
    """A transition that the table does not have: a fault of ours."""


@dataclass
class Proc:
    """What is known of one process."""

    spec: Process
    _state: State = field(default=State.WAITING, init=False)
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
    """Restarts in a row, without `restarts.RESET` seconds of readiness between them."""
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
    hangs: int = 0
    """How often it was found so."""
    requests: Requests | None = None
    """What it last said of its requests."""
    suspected: bool = False
    """Its requests wait unanswered, so far without a consequence."""
    hung: str = ""
    """Why it was killed, where it had given no answer for too long."""
    recycling: bool = False
    """Stopped by us only to be started again at once."""
    recycles: int = 0
    """How often in a row that was done in vain."""
    phase: str = ""
    verdict: Verdict | None = None
    """How the run ends at `verdict_at`, unless it is asked to stop before."""
    verdict_at: float | None = None

    @property
    def state(self) -> State:
        """Where it is in the table of `states`. Only the modules of this folder move it."""
        return self._state

    def enter(self, state: State) -> None:
        """Go to `state`. ImpossibleError when the table has no such transition."""
        if (self._state, state) not in ALLOWED:
            raise ImpossibleError(f"{self.spec.name} cannot go from {self._state.value} to {state.value}")
        self._state = state

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
        return self._state in ALIVE


@dataclass
class GateState:
    """What is known of a server outside this container."""

    spec: Gate
    open: bool = False
    why: str = "not asked yet"
