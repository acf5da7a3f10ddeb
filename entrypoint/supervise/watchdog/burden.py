"""What holds processes up, as far as small files of /proc tell without any rights. Reads, and judges nothing.

Of a process its main thread counts: it is the one that imports, and that has weights loaded.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path

from entrypoint.supervise import process_tree

WALK, SETTLED, SELDOM = 10.0, 60.0, 300.0
"""Seconds between two walks for new processes, which look at every thread, 18 ms for an engine of four ranks:
in a start, there once two have found the same schedulers, and later."""
BELOW = 64
"""Processes of one engine that are looked at."""
STOPPED, STORAGE = "Tt", "D"
"""States of a process: stopped by a signal; waiting for storage."""
PAGE = os.sysconf("SC_PAGE_SIZE")
_RANK = re.compile(r"::scheduler(?:.*?_TP(\d+))?")
_SOME = re.compile(r"^some avg10=([\d.]+)", re.MULTILINE)


@dataclass(frozen=True)
class Seen:
    """One process at a moment: seconds and bytes since its start."""

    state: str
    waited: float | None
    """For a processor, although it could have run; None: this kernel does not count that."""
    stored: int | None
    """Bytes that it had from storage, mapped files among them, …"""
    called: int | None
    """… and that its calls read, from a network's file system or memory too; None: it may not be asked."""


@dataclass
class Total:
    """What was seen over a time."""

    looked: float = 0.0
    """Seconds."""
    waited: float = 0.0
    """Seconds that the process which waited most had no processor."""
    read: int = 0
    """Bytes, of all processes."""
    looks: int = 0
    stopped: int = 0
    """Looks in which one of them was stopped by a signal, …"""
    storage: int = 0
    """… and in which one waited for storage."""


def added(totals: Iterable[Total]) -> Total:
    """All of them together."""
    whole = Total()
    for total in totals:
        for each in fields(whole):
            setattr(whole, each.name, getattr(whole, each.name) + getattr(total, each.name))
    return whole


def seen(pid: int, proc: Path = Path("/proc")) -> Seen | None:
    """Process `pid` now; None when it is gone."""
    place = proc / str(pid)
    try:
        state = (place / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return None
    waited = stored = called = None
    with contextlib.suppress(OSError, ValueError, IndexError):
        waited = int((place / "schedstat").read_text().split()[1]) / 1e9
    with contextlib.suppress(OSError, ValueError, KeyError):
        counted = dict(line.split(": ") for line in (place / "io").read_text().splitlines())
        stored, called = int(counted["read_bytes"]), int(counted["rchar"])
    return Seen(state, waited, stored, called)


@dataclass
class Burden:
    """The processes of one engine, whose main process is `pid`."""

    pid: int
    ranks: dict[int, int] = field(default_factory=dict)
    """The rank of each scheduler, by its pid; -1: it has no number."""
    totals: dict[str, Total] = field(default_factory=dict)
    """By the step that was under way."""
    _pids: tuple[int, ...] = ()
    _walked: float = float("-inf")
    _settled: bool = False
    _before: dict[int, Seen] = field(default_factory=dict)
    _at: float = 0.0

    def look(self, step: str, now: float, *, seldom: bool = False) -> None:
        """Add what was since the last look to `step`. `now`: monotonic seconds.

        `seldom`: only at the schedulers, which are known.
        """
        wait = SELDOM if seldom else SETTLED if self._settled else WALK
        if now - self._walked >= wait or not (self.ranks or seldom):
            before = self.ranks
            self._walk()
            self._walked, self._settled = now, bool(before) and before == self.ranks
        pids = self.ranks if seldom else self._pids
        known = {pid: found for pid in pids if (found := seen(pid)) is not None}
        both = {pid: (self._before[pid], found) for pid, found in known.items() if pid in self._before}
        if both:
            # Once there are schedulers, all others only wait for them.
            own = [pair for pid, pair in both.items() if pid in self.ranks] or [*both.values()]
            total = self.totals.setdefault(step, Total())
            total.looked += now - self._at
            total.waited += max(_more(a.waited, b.waited) for a, b in own)
            total.read += int(sum(_read(a, b) for a, b in both.values()))
            total.looks += 1
            total.stopped += any(b.state in STOPPED for _, b in own)
            total.storage += any(b.state == STORAGE for _, b in own)
        self._before, self._at = known, now

    def _walk(self) -> None:
        self._pids = (self.pid, *_below(self.pid, BELOW))
        titles = ((pid, _RANK.search(process_tree.title(pid))) for pid in self._pids)
        self.ranks = {pid: int(found[1] or -1) for pid, found in titles if found is not None}


def _read(before: Seen, now: Seen) -> float:
    return max(_more(before.stored, now.stored), _more(before.called, now.called))


def _more(before: float | None, now: float | None) -> float:
    return 0.0 if before is None or now is None else max(0.0, now - before)


def _below(pid: int, most: int) -> list[int]:
    found = process_tree.children(pid)
    for each in found:
        if len(found) >= most:
            break
        found += process_tree.children(each)
    return found[:most]


class Machine:
    """What the whole node suffers from: shares and rates since the last look."""

    def __init__(self, proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> None:
        self._proc, self._cgroup = proc, cgroup
        self._before: tuple[float, float, float, float] | None = None
        self.steal, self.swapped = 0.0, 0.0
        """Of the processors' time that the host took, and bytes a second to and from swap."""

    def look(self, now: float) -> dict[str, float]:
        """At the monotonic time `now`. Shares are of 1; pressure is that of the last 10 s."""
        stolen, whole, pages = self._counted()
        if self._before is not None and (ticks := whole - self._before[1]) > 0:
            self.steal = (stolen - self._before[0]) / ticks
            self.swapped = (pages - self._before[2]) * PAGE / max(now - self._before[3], 0.1)
        self._before = stolen, whole, pages, now
        found = {"steal": round(self.steal, 3), "swapped": round(self.swapped)}
        return found | {f"pressure_{kind}": share for kind, share in self._pressure()}

    def _counted(self) -> tuple[float, float, float]:
        stolen = whole = pages = 0.0
        with contextlib.suppress(OSError, ValueError, IndexError):
            line = (self._proc / "stat").read_text().split("\n", 1)[0].split()
            # Guests' time is in that of users already.
            times = [float(ticks) for ticks in line[1:9]]
            stolen, whole = times[7], sum(times)
        with contextlib.suppress(OSError, ValueError):
            lines = (self._proc / "vmstat").read_text().splitlines()
            pages = float(sum(int(v) for n, v in map(str.split, lines) if n in ("pswpin", "pswpout")))
        return stolen, whole, pages

    def _pressure(self) -> Iterator[tuple[str, float]]:
        """The own control group's where it tells (version 2), else the machine's."""
        for kind in ("cpu", "io", "memory"):
            found = next(_texts((self._own_group() / f"{kind}.pressure", self._proc / "pressure" / kind)), "")
            if match := _SOME.search(found):
                yield kind, float(match[1]) / 100

    def _own_group(self) -> Path:
        for line in next(_texts((self._proc / "self" / "cgroup",)), "").splitlines():
            number, _, path = line.split(":", 2)
            if number == "0":
                return self._cgroup / path.lstrip("/")
        return self._cgroup


def _texts(files: Iterable[Path]) -> Iterator[str]:
    for file in files:
        with contextlib.suppress(OSError):
            yield file.read_text()
