"""In which order processes stop, and until when. Pure.

A process stops once everything that needs it, or says it stops before it, is gone; what is not bound
by that stops at the same time. The whole stop fits into one budget: a process that could take all
of it leaves a share for each one that must still stop after it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from entrypoint.plan import Criticality, Plan, Process

if TYPE_CHECKING:
    from entrypoint.supervise.peers import PeerWatch

LAST_SHARE = 2.0
"""Seconds of the budget that each later stage keeps for itself at most."""
UNUSED_AT_MOST = 30.0
"""Seconds from its stop signal for an engine whose own share is less, where others left theirs."""
MARGIN = 0.5
"""Seconds between the last KILL and the end of the budget: reaping, flushing, our own exit."""


@dataclass
class StopPlan:
    """One stop: its order and its deadlines (seconds, monotonic)."""

    plan: Plan
    now: float
    budget: float | None = None
    """Seconds for all of it; None: the plan's."""
    watch: PeerWatch | None = None
    """Runners on other nodes, some of whose processes must end first; None: nothing is waited for there."""
    before: dict[str, set[str]] = field(init=False)
    """For each process, those that must be gone before it is asked to stop."""
    planned: dict[str, float] = field(init=False)
    """For each process, the second of the stop at which it is gone if all before it take all their time."""
    end: float = field(init=False)
    hurried: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        names = {p.name for p in self.plan.processes}
        self.before = {name: set() for name in names}
        for process in self.plan.processes:
            for later in (*process.needs, *process.stops_before):
                if later in names:
                    self.before[later].add(process.name)
        self.planned = {name: self._planned(name) for name in names}
        budget = self.plan.stop_timeout if self.budget is None else self.budget
        self.end = self.now + max(budget - MARGIN, budget / 2)

    def may_stop(self, name: str, alive: set[str]) -> bool:
        """Everything that must stop before `name` is gone, here and on other nodes."""
        return not (self.before[name] & alive) and not (self.watch is not None and self.watch.awaited(name))

    def hold_end(self) -> float | None:
        """Until when processes on other nodes are waited for; None when none is."""
        if self.watch is None or not any(self.watch.awaited(name) for name in self.before):
            return None
        return self.now + self.watch.job.stop_hold

    def turn(self, now: float) -> None:
        """Wait for other nodes no longer than the plan says."""
        if self.watch is not None and now >= self.now + self.watch.job.stop_hold:
            self.watch = None

    def kill_at(self, name: str, now: float) -> float:
        """When `name`, asked to stop at `now`, is killed."""
        stages = self._stages_after(name)
        share = min(LAST_SHARE, self.plan.stop_timeout / (2 * (stages + 1)))
        process = self.plan.process(name)
        due = now + process.grace
        if process.criticality is Criticality.CRITICAL:
            # An engine may use what those before it, and its own drain, have left of their time.
            due = max(due, min(self.now + self.planned[name], now + UNUSED_AT_MOST))
        return min(due, self.end - stages * share)

    def _planned(self, name: str) -> float:
        process = self.plan.process(name)
        earlier = max((self._planned(other) for other in self.before[name]), default=0.0)
        return earlier + self._longest_drain(process) + process.grace

    @staticmethod
    def _longest_drain(process: Process) -> float:
        return process.drain.timeout if process.drain is not None else process.leader_hold or 0.0

    def drain_until(self, name: str, now: float) -> float:
        """When the stop signal is sent to `name` although it still answers requests, or its leader lives."""
        process = self.plan.process(name)
        longest = self._longest_drain(process)
        latest = self.kill_at(name, self.end) - min(process.grace, LAST_SHARE)
        return max(now, min(now + longest, latest))

    def hurry(self, now: float) -> None:
        """No more waiting: everything is due now."""
        self.end = now
        self.hurried = True
        self.watch = None
        self.before = {name: set() for name in self.before}

    def _stages_after(self, name: str) -> int:
        after = [n for n, earlier in self.before.items() if name in earlier]
        return 1 + max(map(self._stages_after, after)) if after else 0
