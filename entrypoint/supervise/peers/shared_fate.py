"""The fate of this runner as one of a Slurm job's: what the peers' answers mean for its director."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from entrypoint.errors import ExitCode
from entrypoint.plan.types import JobPlan
from entrypoint.supervise.lifecycle.actions import Action, Say
from entrypoint.supervise.lifecycle.director import Director
from entrypoint.supervise.lifecycle.peer_watch import Answer, PeerWatch
from entrypoint.supervise.lifecycle.verdicts import NO_CLUES, Clues, Dead, Verdict
from entrypoint.supervise.peers.poller import Poller

PEER_LOST_BUDGET = 8.0
"""Seconds for the stop once a peer is lost: the ranks that are left hang in a collective."""
CAUSE_FIRST = 1.0
"""Seconds by which a runner that lost a peer writes later than that peer itself would."""
LINGER = 2.5
"""Seconds from the begin of a stop in which the peers can read its reason: more than twice their interval."""

OWN_FIRST = 1.0
"""Seconds for which no peer is blamed while a signal has ended a process of our own: an engine that ends
itself kills its others first, and is gone by then."""

Post = Callable[[Callable[[float], Iterable[Action]]], None]


class SharedFate:
    """Events of the peers in, the director's actions out. All but `post` belong to the supervisor's loop."""

    def __init__(
        self,
        job: JobPlan,
        director: Director,
        post: Post,
        token: str | None = None,
        budget: Callable[[], float | None] = lambda: None,
        killed: Callable[[], tuple[str, Dead] | None] = lambda: None,
        clues: Callable[[str], Clues] = lambda name: NO_CLUES,
    ) -> None:
        """`token`: what the peers' health endpoints ask for. `budget`: seconds that the job leaves for a
        stop, where that is more than the plan's; asked in a thread of its own. `killed`: a process of ours
        that goes on without one of its own, and that one; `clues`: what its log says."""
        self._budget, self._killed, self._clues = budget, killed, clues
        self._held: tuple[Verdict, float] | None = None
        """A peer's loss, and until when (monotonic seconds) our own part in it is looked at."""
        self._watch = director.watch = PeerWatch(job, director.started_at)
        self._job, self._director, self._post = job, director, post
        self._poller = Poller(job.peers, lambda answer: post(lambda now: self._answered(answer, now)), token)
        self._looking = False
        self._told = False
        self.on_failure: Callable[[Verdict], None] = lambda verdict: None
        """Called once, in a thread of its own, as soon as this runner's end is a failure."""

    def start(self) -> None:
        """Begin to watch the peers."""
        self._poller.start()

    def close(self) -> None:
        """Watch them no more."""
        self._poller.close()

    def turn(self, now: float) -> list[Action]:
        """Once per turn of the loop."""
        if self._director.stopping is not None:
            self._poller.stopping()
            self._tell()
            return []
        if self._held is not None:
            return self._blame(*self._held, now)
        verdict = self._watch.overdue(now)
        return [] if verdict is None else self._fail(verdict, now)

    def asked_to_stop(self, reason: str, now: float) -> list[Action]:
        """A stop signal came. `srun` sends it to all when one task is gone: the peers are looked at first."""
        if self._looking:
            return self._director.stop(reason, now)
        self._looking = True

        def looked(answers: list[Answer], last: bool) -> None:
            budget = self._budget()
            self._post(lambda now: self._looked(answers, last, reason, budget, now))

        self._poller.last_look(looked)
        return []

    def linger(self) -> None:
        """Stay for a moment after the end, so that peers learn its reason rather than guess it."""
        self._tell()  # of an end that came at once, no turn has
        stopping = self._director.stopping
        if stopping is not None and self._job.peers:
            time.sleep(max(0.0, stopping.now + LINGER - time.monotonic()))

    def _tell(self) -> None:
        # Before the stop, not after it: the node with the first cause must be the first to write it down. It
        # may be busy; who only lost it leaves it a moment.
        verdict = self._director.verdict
        if self._told or verdict is None or verdict.code == 0:
            return
        self._told = True
        delay = CAUSE_FIRST if verdict.code == ExitCode.PEER_LOST else 0.0
        teller = threading.Timer(delay, lambda: self.on_failure(verdict))
        teller.daemon = True
        teller.start()

    def _answered(self, answer: Answer, now: float) -> list[Action]:
        verdict = self._watch.answered(answer, now)
        if verdict is None or self._director.stopping is not None:
            return self._director.tick(now)
        return self._fail(verdict, now)

    def _looked(
        self, answers: list[Answer], last: bool, reason: str, budget: float | None, now: float
    ) -> list[Action]:
        if self._director.stopping is not None:
            return []
        verdict = self._watch.gone_when_asked_to_stop(answers)
        if verdict is not None:
            return self._fail(verdict, now)
        if not last:
            return []
        # Slurm asks all to stop when a container could not be made on one node: that one is the cause.
        up = {answer.peer for answer in answers if answer.status is not None}
        if missing := self._watch.missing(up):
            reason = f"{reason}; had not come up: {', '.join(missing)}"
        longer = [] if budget is None else [Say(f"the job leaves {budget:g} s for the stop")]
        return [*longer, *self._director.stop(reason, now, budget)]

    def _blame(self, verdict: Verdict, until: float, now: float) -> list[Action]:
        """Peers notice a killed rank sooner than its own runner, which alone knows why they lost it."""
        if now < until:
            return []
        self._held, own = None, self._killed()
        if own is None:
            return self._director.fail(verdict.code, verdict.reason, now, budget=PEER_LOST_BUDGET)
        name, dead = own
        return self._director.hollow(name, dead, now, self._clues(name))

    def _fail(self, verdict: Verdict, now: float) -> list[Action]:
        if self._held is not None:
            return []
        if verdict.code == ExitCode.PEER_LOST and self._killed() is not None:
            self._held = verdict, now + OWN_FIRST
            return []
        return self._director.fail(verdict.code, verdict.reason, now, budget=PEER_LOST_BUDGET)
