"""Why a node is slow, as far as what it shows stands out from what the other nodes show. Pure.

What is no more than usual there is no reason, and what nobody can see is left out: nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from entrypoint.supervise.lifecycle.slow import Place, median

LOOKED = 5.0
"""Seconds that something must have been looked at to say anything."""
WAITED, STEAL, SWAPPED = 0.25, 0.1, 10e6
"""Shares of the time from which on they are told, and bytes a second."""
STOPPED, STORAGE = 0.3, 0.5
"""Shares of the looks."""
PRESSED = {"io": (0.4, "waits for storage"), "memory": (0.2, "is short of memory")}
"""Shares of the time in which a task stands still for it."""
TIMES = 2.0
"""So many times what the others show."""
READ_TIMES, READ = 3.0, 32e6
"""The others must read so many times as fast, and so many bytes each."""
BUSY, HELD = 50, 0.6
"""Percent from which on a GPU's clock says something; the share of the others' clocks that is too little."""
SERIOUS = ("hardware slowdown", "heat (software)", "heat (hardware)", "power brake")
CAPPED = "power cap"
"""A GPU that computes is often at it: its clock must be lower than the others' too."""
SERVED, SERVED_TIMES = 0.3, 4.0
"""For an engine that answers requests: its share of the time without a processor, and against the others'."""


def why(place: Place, others: Sequence[Place]) -> list[str]:
    """What stands out on the node `place`, each a sentence without its end; empty: nothing."""
    apart = [other for other in others if other.node != place.node]
    held = [*_held(place, apart)]
    found = [*held, *(() if held else _storage(place, apart)), *_machine(place, apart), *_gpus(place, apart)]
    return [*dict.fromkeys(found)]


def served(place: Place, others: Sequence[Place]) -> str | None:
    """Why every answer waits for this node; None: it does not, as far as can be seen."""
    own = _share(place)
    theirs = [share for other in others if (share := _share(other)) is not None]
    if own is None or not theirs or own < SERVED or own < SERVED_TIMES * median(theirs):
        return None
    looked = place.seen["looked"]
    text = f"its scheduler waited {own:.0%} of the last {looked:.0f} s for a processor core"
    return f"{text}{_and(theirs, _percent)}"


def _share(place: Place) -> float | None:
    looked = place.seen.get("looked", 0.0)
    return place.seen.get("waited", 0.0) / looked if looked >= LOOKED else None


def _held(place: Place, others: Sequence[Place]) -> Iterator[str]:
    """Its processes do not run."""
    looks = place.seen.get("looks", 0.0)
    stopped = place.seen.get("stopped", 0.0)
    if looks >= 4 and stopped >= STOPPED * looks:
        yield f"it was stopped by a signal in {stopped:.0f} of {looks:.0f} looks"
    share = _share(place)
    theirs = [found for other in others if (found := _share(other)) is not None]
    if share is not None and share >= WAITED and share >= TIMES * (median(theirs) if theirs else 0.0):
        yield f"its processes waited {share:.0%} of the time for a processor core{_and(theirs, _percent)}"
    steal = place.machine.get("steal", 0.0)
    if steal >= STEAL and _stands_out(place, others, "steal", TIMES):
        yield f"the host took {steal:.0%} of its node's processor time (steal)"


def _storage(place: Place, others: Sequence[Place]) -> Iterator[str]:
    """It waits for what it reads; one that has no processor reads slowly too."""
    looks, storage = place.seen.get("looks", 0.0), place.seen.get("storage", 0.0)
    rate = _rate(place)
    readers = [other for other in others if other.seen.get("read", 0.0) >= READ]
    theirs = [found for other in readers if (found := _rate(other)) is not None]
    waits = looks >= 4 and storage >= STORAGE * looks
    if waits:
        yield f"it waited for storage in {storage:.0f} of {looks:.0f} looks"
    if rate is not None and theirs and median(theirs) >= READ_TIMES * rate:
        yield f"it reads {_speed(rate)}, {_them(theirs, _speed)}"
    elif rate and waits:
        yield f"it reads {_speed(rate)}"


def _rate(place: Place) -> float | None:
    looked = place.seen.get("looked", 0.0)
    return place.seen.get("read", 0.0) / looked if looked > 0 else None


def _machine(place: Place, others: Sequence[Place]) -> Iterator[str]:
    swapped = place.machine.get("swapped", 0.0)
    if swapped >= SWAPPED and _stands_out(place, others, "swapped", READ_TIMES):
        yield f"its node swaps {_speed(swapped)}"
    for kind, (least, words) in PRESSED.items():
        share = place.machine.get(f"pressure_{kind}", 0.0)
        if share >= least and _stands_out(place, others, f"pressure_{kind}", TIMES):
            yield f"its node {words} in {share:.0%} of the time (pressure)"


def _stands_out(place: Place, others: Sequence[Place], name: str, times: float) -> bool:
    theirs = [other.machine[name] for other in others if name in other.machine]
    return bool(theirs) and place.machine[name] >= times * median(theirs)


def _gpus(place: Place, others: Sequence[Place]) -> Iterator[str]:
    theirs = [gpu for other in others for gpu in other.gpus]
    clocks = [clock for gpu in theirs if (clock := _clock(gpu)) is not None]
    for gpu in place.gpus:
        slowed = [str(reason) for reason in gpu.get("slowed") or ()]
        reasons = [r for r in slowed if r in SERIOUS and not (theirs and 2 * _with(r, theirs) >= len(theirs))]
        clock = _clock(gpu)
        low = clock is not None and bool(clocks) and clock <= HELD * median(clocks)
        if low and CAPPED in slowed:
            reasons.append(CAPPED)
        if not reasons and not low:
            continue
        compared = f", {_them(clocks, lambda c: f'{c:.0f}')}" if low else ""
        told = f" ({', '.join(reasons)})" if reasons else ""
        yield f"GPU {gpu.get('index')}'s clock is held at {gpu.get('clock')} MHz{told}{compared}"


def _with(reason: str, gpus: Sequence[Mapping[str, Any]]) -> int:
    return sum(reason in (gpu.get("slowed") or ()) for gpu in gpus)


def _clock(gpu: Mapping[str, Any]) -> float | None:
    """MHz of one that computes: all others lower theirs by themselves."""
    clock, busy = gpu.get("clock"), gpu.get("busy")
    numbers = isinstance(clock, int | float) and isinstance(busy, int | float) and busy >= BUSY
    return float(clock) if numbers and isinstance(clock, int | float) else None


def _them(values: Sequence[float], words: Callable[[float], str]) -> str:
    return f"the other{'s' if len(values) > 1 else ''} {words(median(values))}"


def _and(values: Sequence[float], words: Callable[[float], str]) -> str:
    return f", {_them(values, words)}" if values else ""


def _percent(share: float) -> str:
    return f"{share:.0%}"


def _speed(rate: float) -> str:
    for unit, size in (("GB/s", 1e9), ("MB/s", 1e6)):
        if rate >= 0.1 * size:
            return f"{rate / size:.1f} {unit}"
    return f"{rate / 1e3:.0f} kB/s"
