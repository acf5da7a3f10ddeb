"""Processes that are slow because their control group has used up its processor quota (cpu.max).

They are neither stopped nor silent, so nothing else tells them from those that have much to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
EVERY = 10.0
"""Seconds between two looks."""
SHARE, FREE = 0.75, 0.1
"""Of the quota's periods: so many were cut short when it is told, and so few before it is told again."""
PERIODS = 20
"""Periods in which something ran, at least: fewer say nothing."""


@dataclass(frozen=True)
class Counted:
    """A control group's cpu.stat."""

    periods: int
    throttled: int


def groups_of(pid: int, proc: Path = Path("/proc"), root: Path = ROOT) -> Iterator[Path]:
    """The files cpu.stat of a process's groups, its own first; none where they are not mounted.

    In a container the path may be the host's, while only the container's own part is mounted.
    """
    try:
        lines = (proc / str(pid) / "cgroup").read_text(errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for base in (root / controllers, root / "cpu", root) if controllers else (root,):
            place = base / path.lstrip("/")
            while place != base.parent:
                if (file := place / "cpu.stat").is_file():
                    yield file
                place = place.parent
            if (base / "cpu.stat").is_file():
                break


def read(file: Path) -> Counted | None:
    """What a cpu.stat says; None: the group has no quota, or is gone."""
    try:
        found = dict(line.split()[:2] for line in file.read_text().splitlines())
        counted = Counted(int(found["nr_periods"]), int(found["nr_throttled"]))
    except (OSError, KeyError, ValueError):
        return None
    return counted if counted.periods else None


class Quotas:
    """Compares each group with what it was EVERY seconds ago."""

    def __init__(self) -> None:
        self._known: dict[Path, Counted] = {}
        self._told: set[Path] = set()

    def look(self, pids: Iterator[int]) -> float | None:
        """The share of the time since the last look in which the worst group of `pids` was held back.

        Once for each group; None: none is worth telling.
        """
        worst = None
        for file in dict.fromkeys(file for pid in pids for file in groups_of(pid)):
            now = read(file)
            if now is None:
                continue
            before = self._known.get(file)
            self._known[file] = now
            if before is None:
                # A quota that is new counts from nothing.
                before = Counted(0, 0) if now.periods <= EVERY * 20 else now
            periods = now.periods - before.periods
            share = (now.throttled - before.throttled) / periods if periods >= PERIODS else 0.0
            if share >= SHARE and file not in self._told:
                self._told.add(file)
                worst = max(share, worst or 0.0)
            elif share <= FREE:
                self._told.discard(file)
        return worst
