"""What each node's lines say went wrong there: data for `judge`. Pure; times are Unix seconds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from entrypoint.supervise.failures.known import Explanation, KnownFailure, explain, lost_rank_of
from entrypoint.supervise.failures.lines import LogLine, numbered_lines

ELSEWHERE = frozenset(
    (
        "gloo-timeout", "nccl-timeout", "capture-collective", "watchdog", "etcd-lease", "nats",
        "nats-refused", "bootstrap-refused", "nixl-disconnect", "decode-handshake", "kv-transfer-stalled",
        "decode-without-prefill",
    )
)  # fmt: skip
"""Records of what begins in another process: that one's own finding comes first."""
FOLLOWS = frozenset(("peer-lost",))
"""Records of what another process's end brings about."""


class Weight(IntEnum):
    """How near to the first cause a finding can be."""

    CAUSE = 0
    GONE = 1
    """A node or task is not there any more; others say so."""
    SYMPTOM = 2
    """Something waited in vain for another process."""
    CONSEQUENCE = 3


@dataclass(frozen=True)
class Finding:
    """Something that went wrong in one process."""

    weight: Weight
    at: float | None
    """When it was said; None: not known."""
    node: str
    process: str
    what: str
    kind: str
    """The record's key, or what kind it is otherwise: the same for all that say the same."""
    late: float = 0.0
    """Seconds by which it may have begun earlier."""
    rank: str = ""
    """`TP3`; empty: the line does not say."""
    known: KnownFailure | None = None
    sure: bool = True
    """False: another line than the exception that ended it says so."""
    do: str = ""
    """What to do where nothing is known of it."""
    quote: str = ""
    """The line itself."""
    where: str = ""
    """File and line."""

    @property
    def begun(self) -> float | None:
        """When it began at the earliest, Unix seconds."""
        return None if self.at is None else self.at - self.late


@dataclass(frozen=True)
class Written:
    """One process's lines, with their times."""

    node: str
    process: str
    path: str
    lines: Sequence[str]
    times: Sequence[float | None]
    numbers: Sequence[int]


_TP = re.compile(r"\b(TP\d+|DP\d+ TP\d+)(?: (?:EP|PP)\d+)*\]|scheduler_(TP\d+)|\[rank(\d+)\]")
LOOK_BACK = 80
"""Lines before the one that tells, in which its rank may stand."""


def of_process(written: Written) -> Finding | None:
    """What the lines of an engine or server say of its end; None when they do not."""
    read = [*numbered_lines(written.lines)]
    log = [line for _, line in read]
    found = explain(log)
    if found is None:
        return None
    number = read[found.at][0]
    lost = lost_rank_of(log)
    what = _words(found, log[found.at])
    weight = _weight(found, lost)
    if lost is not None and weight is Weight.CONSEQUENCE:
        what = f"lost the rank at {lost}: {what}"
    return Finding(
        weight=weight,
        at=written.times[number],
        node=written.node,
        process=written.process,
        what=what,
        kind=found.known.key if found.known is not None else _kind(found),
        rank=_rank(log, found.at),
        known=found.known,
        sure=found.sure or found.known is None,
        do="see the lines around it",
        quote=written.lines[number].strip()[:300],
        where=f"{written.path}:{written.numbers[number]}",
    )


def _weight(found: Explanation, lost: str | None) -> Weight:
    key = found.known.key if found.known is not None else ""
    if lost is not None or key in FOLLOWS or (found.raised is not None and found.raised.follows and not key):
        return Weight.CONSEQUENCE
    return Weight.SYMPTOM if key in ELSEWHERE else Weight.CAUSE


def _words(found: Explanation, line: LogLine) -> str:
    text = str(found.raised) if found.raised is not None else line.text.strip()
    return text if len(text) < 300 else f"{text[:299]}…"


def _kind(found: Explanation) -> str:
    assert found.raised is not None
    return found.raised.what.partition(":")[0].strip()


def _rank(log: Sequence[LogLine], at: int) -> str:
    for line in reversed(log[max(0, at - LOOK_BACK) : at + 1]):
        if (found := _TP.search(line.whole[:80])) is not None:
            return found[1] or found[2] or f"rank {found[3]}"
        if line.headed and line.whole.endswith("Traceback (most recent call last):"):
            break
    return ""


def rank_of_title(title: str) -> str:
    """`TP1` of ``sglang::scheduler_TP1``; empty where there is none."""
    found = _TP.search(title)
    return (found[1] or found[2] or "") if found is not None else ""
