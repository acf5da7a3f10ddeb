"""Which node is slower in a start than the others of its role: what all nodes tell goes in, names come out.

Ranks are compared only in steps that each takes by itself (`output.steps`), by the time that each needed, so
that neither clocks nor a later start matter. Pure; all durations are seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

DOING = {
    "starting": "starting",
    "weights": "loading weights",
    "draft": "loading the draft model",
}
"""The steps in their order, in words."""
LATE = 20.0
"""Behind the others by less than that is nobody, …"""
FACTOR = 1.5
"""… nor who takes less than so many times what they took."""
SPREAD = 7.0
"""And so many times as far from their median as they are themselves, of whom the half is nearer: some are
always the last of many."""


@dataclass(frozen=True)
class Place:
    """One node's ranks of a worker in one step."""

    node: str
    worker: str
    ranks: tuple[int, ...]
    """Their numbers, as far as they are known."""
    ended: tuple[tuple[float, float], ...]
    """Of each that is through: what it took, and how long ago it was through."""
    open: int
    """Ranks that are not."""
    elapsed: float
    """What those have taken so far."""
    progress: str = ""
    seen: Mapping[str, float] = field(default_factory=dict)
    """What held its processes up in this step (`watchdog.burden.Total`)."""
    machine: Mapping[str, float] = field(default_factory=dict)
    gpus: tuple[Mapping[str, Any], ...] = ()

    @property
    def count(self) -> int:
        """Its ranks."""
        return self.open + len(self.ended)


@dataclass(frozen=True)
class Slow:
    """A node that the others are waiting for, or have been faster than."""

    place: Place
    step: str
    others: int
    """Ranks that are through, …"""
    took: float
    """… what they took, by the median, …"""
    ago: float
    """… and how long ago they were."""
    waits: bool
    """They are of the same worker."""

    def line(self, total: int, since: str, evidence: Sequence[str]) -> str:
        """For a person. `total`: ranks of the worker; `since`: the time of day when they were through."""
        place = self.place
        steps = f" ({place.progress} shards)" if place.progress else ""
        wait = f" and wait{'s' if self.others == 1 else ''}" if self.waits else ""
        found = f": {'; '.join(evidence)}" if evidence else ""
        return (
            f"{who(place, total)} is slow since {since}: {DOING[self.step]} for {duration(place.elapsed)}"
            f"{steps}, the other {self.others} took {duration(self.took)}{wait}{found}"
        )


def places_of(
    node: str, worker: str, process: Mapping[str, Any], load: Mapping[str, Any], step: str
) -> Place | None:
    """What a status says of a node's ranks in a step; None: nothing, or nothing that can be understood."""
    pace = process.get("pace")
    try:
        found = pace["steps"][step]  # type: ignore[index]
        ended = tuple((float(took), float(ago)) for took, ago in found["ended"])
        ranks = tuple(sorted(int(rank) for rank in pace["ranks"]))  # type: ignore[index]
        numbers = {str(name): float(value) for name, value in found["seen"].items()}
        machine = {str(n): float(v) for n, v in (load.get("machine") or {}).items()}
        gpus = tuple(gpu for gpu in load.get("gpus") or () if isinstance(gpu, dict))
        return Place(
            node=node,
            worker=worker,
            ranks=ranks,
            ended=ended,
            open=int(found["open"]),
            elapsed=float(found["elapsed"]),
            progress=str(found.get("progress") or ""),
            seen=numbers,
            machine=machine,
            gpus=gpus,
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None  # another release's, or one that has not begun it


def slow(step: str, places: Sequence[Place]) -> Iterator[Slow]:
    """The nodes that are slow in `step`; none where no more than half of the other ranks are through."""
    ended = [end for place in places for end in place.ended]
    # Those that are not through count as slower than all that are, or the first ones would say what is usual.
    late = [math.inf] * (sum(place.count for place in places) - 1 - len(ended))
    if not ended:
        return
    took = median([*(seconds for seconds, _ in ended), *late])
    if took == math.inf:
        return
    spread = 1.4826 * median([*(abs(seconds - took) for seconds, _ in ended), *late])
    limit = max(took + LATE, took * FACTOR, took + SPREAD * spread)
    for place in places:
        if place.open and place.elapsed > limit:
            waits = len({p.worker for p in places}) == 1
            yield Slow(place, step, len(ended), took, median([ago for _, ago in ended]), waits)


def who(place: Place, total: int) -> str:
    """`rank 3 of 24 (node n4)`, `ranks 12-15 of 24 (node n4)`, `1 of ranks 12-15 of 24 (node n4)`."""
    where = f" (node {place.node})" if place.node else ""
    known = [rank for rank in place.ranks if rank >= 0]
    if not known:
        return f"a rank{where}" if place.open < 2 else f"{place.open} ranks{where}"
    text = f"rank {known[0]}" if len(known) == 1 else f"ranks {known[0]}-{known[-1]}"
    part = f"{place.open} of " if place.open < len(known) and place.open else ""
    return f"{part}{text} of {total}{where}"


def duration(seconds: float) -> str:
    """`0.4 s`, `48 s`, `4 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def median(values: Sequence[float]) -> float:
    """Of at least one value. Not from `statistics`, which costs a start several milliseconds."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
