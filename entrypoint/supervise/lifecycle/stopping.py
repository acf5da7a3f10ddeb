"""In which order processes stop, and until when. Pure; times are monotonic seconds.

A process stops once everything that needs it, or says it stops before it, is gone; what is not bound
by that stops at the same time. The whole stop fits into one budget (`stop_budget`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from entrypoint.plan.stop_budget import DRAIN_DELAY, Budget
from entrypoint.plan.types import Plan

if TYPE_CHECKING:
    from entrypoint.supervise.lifecycle.peer_watch import PeerWatch


@dataclass
class StopPlan:
    """One stop: its order and its deadlines (seconds, monotonic)."""

    plan: Plan
    now: float
    budget: float | None = None
    """Seconds for all of it; None: the plan's. What is more than the plan's is for whoever still answers."""
    watch: PeerWatch | None = None
    """Runners on other nodes, some of whose processes must end first; None: nothing is waited for there."""
    before: dict[str, set[str]] = field(init=False)
    """For each process, those that must be gone before it is asked to stop."""
    shares: Budget = field(init=False)
    """What is kept for whom."""
    end: float = field(init=False)
    """When the last KILL is due."""
    hurried: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        names = {p.name for p in self.plan.processes}
        self.before = {name: set() for name in names}
        for process in self.plan.processes:
            for later in (*process.needs, *process.stops_before):
                if later in names:
                    self.before[later].add(process.name)
        after: dict[str, list[str]] = {name: [] for name in names}
        for name, earlier in self.before.items():
            for other in earlier:
                after[other].append(name)
        self.shares = Budget(
            self.plan.stop_timeout if self.budget is None else self.budget,
            {p.name: p.grace if p.least is None else min(p.least, p.grace) for p in self.plan.processes},
            after,
            # A frontend's own is for load balancers, which never see one that is behind something else here.
            {p.name: min(p.drain.delay, DRAIN_DELAY) for p in self.plan.processes if p.drain is not None},
        )
        self.end = self.now + self.shares.usable

    def may_stop(self, name: str, alive: set[str]) -> bool:
        """Everything that must stop before `name` is gone, here and on other nodes."""
        return not (self.before[name] & alive) and not (self.watch is not None and self.watch.awaited(name))

    @property
    def more(self) -> float:
        """Seconds that there are beyond the plan's."""
        return max(0.0, (self.budget or 0.0) - self.plan.stop_timeout)

    def hold_end(self) -> float | None:
        """Until when processes on other nodes are waited for; None when none is."""
        if self.watch is None or not any(self.watch.awaited(name) for name in self.before):
            return None
        return self.now + self.watch.job.stop_hold + self.more

    def turn(self, now: float) -> None:
        """Wait for other nodes no longer than the plan says."""
        if self.watch is not None and now >= self.now + self.watch.job.stop_hold + self.more:
            self.watch = None

    def kill_at(self, name: str, now: float) -> float:
        """When `name`, asked to stop at `now`, is killed."""
        return min(now + self.plan.process(name).grace + self.more, self.latest_kill(name))

    def latest_kill(self, name: str) -> float:
        """When it is killed at the latest, so that those after it have what is kept for them."""
        return self.now if self.hurried else self.now + self.shares.latest_kill(name)

    def drain_until(self, name: str, now: float) -> float:
        """When the stop signal is sent to `name` although it still answers requests, or its leader lives."""
        process = self.plan.process(name)
        longest = process.drain.timeout if process.drain is not None else process.leader_hold or 0.0
        return max(now, min(now + longest + self.more, self.now + self.shares.latest_signal(name)))

    def shorten(self, now: float) -> None:
        """Only the plan's budget is left, from `now` on."""
        if self.more and not self.hurried and now + self.plan.stop_timeout < self.now + (self.budget or 0.0):
            self.now, self.budget = now, None
            self.__post_init__()

    def hurry(self, now: float) -> None:
        """No more waiting: everything is due now."""
        self.now = self.end = now
        self.hurried = True
        self.watch = None
        self.before = {name: set() for name in self.before}
