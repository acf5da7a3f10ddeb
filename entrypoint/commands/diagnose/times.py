"""When a line was written, and which clock says so. Pure; times are Unix seconds.

SGLang, PyTorch, NATS and nginx write local time without its zone; Dynamo writes UTC. Where both stand in one
file, the zone follows from lines beside each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from heapq import heappop, heappush
from statistics import median

_DATE = re.compile(
    r"(?P<y>\d{4})[-/](?P<mo>\d\d)[-/](?P<d>\d\d)[T ](?P<h>\d\d):(?P<mi>\d\d):(?P<s>\d\d)(?P<f>[.,]\d+)?"
    r"(?P<zone>Z|[+-]\d\d:?\d\d\b)?"
)
_TORCH = re.compile(
    r"(?:\[rank\d+\]: ?)?\[?[IWEF](?P<mo>\d\d)(?P<d>\d\d) (?P<h>\d\d):(?P<mi>\d\d):(?P<s>\d\d)(?P<f>\.\d+)?"
)
_EPOCH = re.compile(r"\[(\d{10}\.\d+)\] \[")
HEAD = 60
"""Characters of a line within which its time stands."""
QUARTER = 900
"""Seconds: zones differ from UTC by whole quarters of an hour."""


def stamp_of(line: str, year: int | None = None) -> tuple[float, bool] | None:
    """The time that a line gives: seconds, and whether they are UTC; else a local clock's as if it were UTC.

    `year`: of the lines before it, for PyTorch, which writes none.
    """
    head = line[:HEAD]
    if (found := _EPOCH.match(head)) is not None:
        return float(found[1]), True
    if (found := _DATE.search(head)) is not None:
        zone = found["zone"]
        return _seconds(int(found["y"]), found) - _zone(zone), zone is not None
    if year is not None and (found := _TORCH.match(head)) is not None:
        return _seconds(year, found), False
    return None


def _seconds(year: int, found: re.Match[str]) -> float:
    month, day, hour, minute, second = (int(found[name]) for name in ("mo", "d", "h", "mi", "s"))
    try:
        whole = datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc).timestamp()
    except ValueError:
        return 0.0
    return whole + float(f"0.{found['f'][1:]}" if found["f"] else 0)


def _zone(text: str | None) -> float:
    if text is None or text == "Z":
        return 0.0
    sign = -1 if text[0] == "-" else 1
    return sign * (int(text[1:3]) * 3600 + int(text[-2:]) * 60)


def times_of(lines: Sequence[str], zone: float | None = None) -> tuple[list[float | None], float | None]:
    """The time of every line in Unix seconds, and what local time is ahead of UTC by (None: not to be seen).

    A line without a time has that of the line before it. `zone`: seconds, where these lines do not tell.
    """
    stamps: list[tuple[float, bool] | None] = []
    year: int | None = None
    utc: float | None = None
    ahead = []
    for line in lines:
        stamp = stamp_of(line, year)
        stamps.append(stamp)
        if stamp is None:
            continue
        year = datetime.fromtimestamp(stamp[0], timezone.utc).year
        if stamp[1]:
            utc = stamp[0]
        elif utc is not None:
            ahead.append(stamp[0] - utc)
    own = round(median(ahead) / QUARTER) * QUARTER if ahead else None
    used = own if own is not None else zone or 0.0
    last: float | None = next((_utc(s, used) for s in stamps if s is not None), None)
    found = []
    for stamp in stamps:
        last = last if stamp is None else _utc(stamp, used)
        found.append(last)
    return found, own


def _utc(stamp: tuple[float, bool], zone: float) -> float:
    return stamp[0] if stamp[1] else stamp[0] - zone


def corrections(
    compared: Iterable[tuple[str, str, float, float]], nodes: Sequence[str]
) -> tuple[str | None, Mapping[str, float]]:
    """Whose clock is the measure, and by how many seconds each other node's is ahead of it.

    `compared`: observer, node, seconds that the node is ahead of the observer, and the round trip in seconds.
    The way with the least round trips counts. Nodes that were never compared are left out.
    """
    links: dict[str, dict[str, tuple[float, float]]] = {}
    for observer, node, offset, trip in compared:
        for one, other, ahead in ((observer, node, offset), (node, observer, -offset)):
            known = links.setdefault(one, {}).get(other)
            if known is None or trip <= known[0]:
                links[one][other] = trip, ahead
    first = next((node for node in nodes if node in links), None)
    if first is None:
        return None, {}
    found: dict[str, float] = {}
    ways: list[tuple[float, str, float]] = [(0.0, first, 0.0)]
    while ways:
        trip, node, ahead = heappop(ways)
        if node in found:
            continue
        found[node] = ahead
        for other, (more, further) in links[node].items():
            heappush(ways, (trip + more, other, ahead + further))
    return first, found


def clock_time(at: float | None) -> str:
    """Unix seconds as ``02:13:07.120``, UTC; empty: not known."""
    if at is None:
        return ""
    return datetime.fromtimestamp(at, timezone.utc).strftime("%H:%M:%S.%f")[:-3]
