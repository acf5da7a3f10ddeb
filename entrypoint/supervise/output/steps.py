"""The steps of a start that each rank takes by itself, by its process's log. Pure: lines in, times out.

In all other phases (joining, the KV cache, graphs) the ranks wait for each other, so that nobody's log shows
who is behind. Under Dynamo lines do not say which rank's they are, and bars of shards are the first rank's
alone: the ranks of one process are counted, not named. All times are monotonic seconds given by the caller.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

STEPS = ("starting", "weights", "draft")
"""From the spawn until a rank joins the others; loading; loading the draft model."""
_MARK = re.compile(r"Init (?:torch distributed|parallel) begin|Load weight (?:begin|end)")


@dataclass
class Step:
    """One step of all ranks of a process."""

    began: float
    begun: int = 0
    """Ranks that have begun it; 0: nobody has said so, as in `starting`."""
    ends: list[float] = field(default_factory=list)
    """When ranks were through with it."""


class Steps:
    """Of one life of a process that was spawned at `started`; `feed` it every line."""

    def __init__(self, started: float) -> None:
        self.all = {"starting": Step(started)}
        self._now = "starting"

    def feed(self, line: str, now: float) -> None:
        """Take a line of the log."""
        for mark in _MARK.findall(line) if " begin" in line or "Load weight end" in line else ():
            if mark.startswith("Init"):
                self.all["starting"].ends.append(now)
            elif mark.endswith("begin"):
                self._begin(now)
            elif self._now != "starting" and len(self.all[self._now].ends) < self.all[self._now].begun:
                self.all[self._now].ends.append(now)

    def _begin(self, now: float) -> None:
        last = self.all[self._now]
        if self._now == "starting":
            self._now = "weights"
        elif self._now == "weights" and len(last.ends) == last.begun:
            self._now = "draft"
        self.all.setdefault(self._now, Step(now)).begun += 1
