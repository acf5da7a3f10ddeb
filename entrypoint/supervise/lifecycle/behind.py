"""Which rank of a worker is behind: what all nodes know of their ranks goes in, one line comes out. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RankPlace:
    """Where one rank stands."""

    node: str
    title: str
    """Its process: `sglang::scheduler_TP1`."""
    stopped: bool
    collective: str
    """The collective that it waits in; empty: in none."""
    doing: str
    """The same in words, with its stack."""

    @property
    def rank(self) -> str:
        """`rank 1`, or the process's name where that has no number."""
        digits = self.title.rpartition("TP")[2].partition("_")[0].partition(" ")[0]
        return f"rank {digits}" if digits.isdigit() else self.title


def places_of(node: str, evidence: Any) -> list[RankPlace]:
    """The ranks in what a status says under `evidence`."""
    if not isinstance(evidence, dict):
        return []
    return [
        RankPlace(node, str(p["title"]), bool(p["stopped"]), str(p["collective"]), str(p["doing"]))
        for p in evidence.get("ranks", ())
        if isinstance(p, dict) and p.keys() >= {"title", "stopped", "collective", "doing"}
    ]


def behind(places: Sequence[RankPlace], since: str) -> str | None:
    """The line that names the rank behind, which the others have waited for since `since` (a time of day).

    None where nobody can be named: all wait for each other, or nobody's place is known.
    """
    first = next((p for p in places if p.stopped), None)
    if first is None:
        # Who is in no collective keeps those waiting who are; of one alone nothing follows.
        outside = [p for p in places if not p.collective]
        if len(outside) != 1 or len(places) < 2:
            return None
        first = outside[0]
    others = len(places) - 1
    where = f" (node {first.node})" if first.node else ""
    waiting = f"; the other {others} of its worker wait{'s' if others == 1 else ''}" if others else ""
    return f"{first.rank} of {len(places)}{where} is behind since {since}: it {first.doing}{waiting}"
