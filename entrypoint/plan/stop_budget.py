"""When is what stopped and killed: the arithmetic of one stop, all of it. Pure; durations are seconds.

GLM47_STOP_TIMEOUT is the budget of a whole stop. Processes stop in an order: nginx, frontend, workers, etcd
and NATS; each once everything before it is gone. Of each two numbers are known:

- `least`: kept for it in any case, from its stop signal to its KILL. What it really takes, with some room.
- `grace`: what it may take where others leave theirs: all but what is kept for those after it. A clean stop
  that takes long is no failure as long as there is budget.

So whoever is first may use all that is not kept for those after it:

    0                     not ready any more; the first drains, or gets its stop signal
    up to latest_signal   it drains: a frontend's, or a worker's, last requests are waited for
    signal + grace        KILL; before that at latest_kill, where what is kept for later ones begins
    usable                the last KILL; MARGIN later we have left

Where the budget is too short for what is kept, every `least` shrinks alike, to KEPT of it together.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

MARGIN = 0.5
"""Between the last KILL and the end of the budget: reaping, flushing, our own exit."""
KEPT = 0.5
"""Of what is usable, what is kept for stop signals at most: the other half is for drains."""
DRAIN_DELAY = 1.0
"""From a worker's withdrawal until a frontend has surely seen it: a drain takes that long at least."""
LOADING_GRACE = 5.0
"""For a loading engine to leave by itself. `dynamo.sglang` looks at the signal only once its engine is up, up
to 20 minutes later, and lists the model for some seconds even then. No request is lost."""
LEFTOVER_GRACE = 5.0
"""Between TERM and KILL for what an ended process left behind."""
BROKEN_GRACE = 5.0
"""For an engine that cannot answer any more: there is nothing that it could finish."""
LATE_STOP = 5.0
"""For a stop signal of its own to reach a follower whose leader is gone: one stop may reach two nodes at
different times, and a leader that has nothing to answer is gone at once."""
JOB_LEADER_HOLD = 2.0
"""For a follower's schedulers to see that their leader's are gone, in a Slurm job."""
HOLD_MARGIN = 1.0
"""For the news of an end to arrive from another node."""


@dataclass(frozen=True)
class Need:
    """What a kind of process needs of a stop."""

    least: float
    part: float
    """`least` as a part of the budget at most."""

    def kept(self, total: float) -> float:
        """`least` in a budget of `total`."""
        return min(self.least, total * self.part)


NGINX = Need(1.0, 1 / 40)
"""QUIT ends it with its last request: its grace is its drain."""
FRONTEND = Need(2.0, 1 / 12)
"""Drained before its signal: Dynamo then sleeps for 1 s, and is gone."""
WORKER = Need(15.0, 1 / 4)
"""SGLang without a request takes 2 to 8 s where it has a core, 14 where it has none (engine-stop.md)."""
SERVER = Need(2.0, 1 / 25)
"""etcd and NATS: well under one second where the disk is not slow."""


def usable(total: float) -> float:
    """When the last KILL of a stop with the budget `total` is due."""
    return max(total - MARGIN, total / 2)


@dataclass(frozen=True)
class Budget:
    """The latest times of one stop, in seconds from its begin. `later` must not go round in a circle."""

    total: float
    least: Mapping[str, float]
    """By process."""
    later: Mapping[str, Iterable[str]]
    """By process, those that stop only once it is gone."""
    delay: Mapping[str, float] = field(default_factory=dict)
    """By process, how long it drains at least, where something stops before it."""

    @property
    def usable(self) -> float:
        """When the last KILL is due."""
        return usable(self.total)

    def latest_kill(self, name: str) -> float:
        """When `name` must be gone for all that stops after it to have what is kept for it."""
        return self.usable - self._scale() * self._after(name)

    def latest_signal(self, name: str) -> float:
        """When `name` must have its stop signal, to have what is kept for itself too."""
        return self.usable - self._scale() * self._chain(name)

    def _chain(self, name: str) -> float:
        return self.least[name] + self._after(name)

    def _after(self, name: str) -> float:
        later = self.later.get(name, ())
        return max((self.delay.get(other, 0.0) + self._chain(other) for other in later), default=0.0)

    def _scale(self) -> float:
        longest = max(map(self._chain, self.least), default=0.0)
        return min(1.0, self.usable * KEPT / longest) if longest else 1.0


NEEDS = {"nginx": NGINX, "frontend": FRONTEND, "worker": WORKER, "server": SERVER}
"""By kind of process, in the order in which the kinds stop."""


@dataclass(frozen=True)
class Shares:
    """What the budget gives each kind of process in one container."""

    budget: Budget

    def least(self, kind: str) -> float:
        """Seconds from its stop signal that are kept for it."""
        return round(NEEDS[kind].kept(self.budget.total), 2)

    def grace(self, kind: str) -> float:
        """Seconds from its stop signal that it gets where nobody has taken them before."""
        return round(self.budget.latest_kill(kind), 2)

    def drain(self, kind: str) -> float:
        """Seconds that it may drain when nothing stops before it."""
        return round(self.budget.latest_signal(kind), 2)

    def gone(self, kind: str) -> float:
        """Seconds from the begin of the stop after which it has surely ended."""
        return round(self.budget.latest_kill(kind), 2)


def worker_delay(total: float) -> float:
    """How long a worker that drains does so at least."""
    return min(DRAIN_DELAY, total / 20)


def shares(total: float, kinds: Collection[str], *, worker_drains: bool = True) -> Shares:
    """The shares of `total` in a container that holds `kinds` of `NEEDS`."""
    held = [kind for kind in NEEDS if kind in kinds]
    delay = {"worker": worker_delay(total)} if worker_drains else {}
    least = {kind: NEEDS[kind].kept(total) for kind in held}
    return Shares(Budget(total, least, {a: (b,) for a, b in itertools.pairwise(held)}, delay))
