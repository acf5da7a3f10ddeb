"""Known failures in the output of a process that lives: said when the line comes, not when it is too late.

What a living process writes is no cause yet: it may go on. So every finding says "perhaps", and each failure
is told once in a process's life.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

NEEDLES = (b"rror", b"RROR", b"xception", b"WARN", b"FATAL", b"CRITICAL", b"ERR]", b"emerg]",
           b"what()", b"panicked", b"[E", b"fail", b"Fail", b"imeout", b"already in use", b"missing",
           b"out of memory")  # fmt: skip
"""Every line of a known failure has one of them; a busy engine's other lines are not read at all."""
EVERY = 0.4
"""Seconds between two looks at one process."""
LINES = 400
"""New lines of one look at most, the newest ones; a look takes some 20 microseconds for each."""
SEARCHED = 1 << 20
"""Bytes that are searched between two looks; of a flood, the newest lines are searched besides."""
BEFORE = 60
"""Lines before them that are read to know what they belong to: a traceback, the text of a request."""
MATCHED = 40
"""Lines of one look that are compared with what is known."""
QUOTED = 200
"""Characters of a line that are quoted."""


@dataclass(frozen=True)
class Finding:
    """One known failure in the output of one process."""

    key: str
    """Of the table's record (`records`)."""
    text: str
    """What is known about it, and what to do."""
    line: str
    """The line that tells it."""

    def __str__(self) -> str:
        return f"perhaps {self.text}; it wrote: {self.line}"


class LiveHints:
    """Of one life of a process. `saw` is called with all that it writes, `look` at most once a turn."""

    def __init__(self, tail: Callable[[int], list[str]]) -> None:
        """`tail` gives the last lines."""
        self._tail = tail
        self._unread = self._searched = 0
        self._worth = False
        self._looked = 0.0
        self._told: set[str] = set()

    def saw(self, data: bytes, lines: int) -> None:
        """`data`, so many whole `lines`, has been forwarded."""
        self._unread += lines
        if not self._worth and self._searched <= SEARCHED:
            self._searched += len(data)
            self._worth = any(needle in data for needle in NEEDLES)

    def due(self) -> float | None:
        """When `look` has something to do (monotonic seconds); None: not before the next line."""
        return self._looked + EVERY if self._worth or self._searched > SEARCHED else None

    def look(self, now: float) -> Iterator[Finding]:
        """What is new at `now` (monotonic seconds), each failure once, the better known ones first."""
        if now < self._looked + EVERY:
            return
        worth, flooded, new = self._worth, self._searched > SEARCHED, min(self._unread, LINES)
        self._looked, self._worth, self._unread, self._searched = now, False, 0, 0
        lines = self._tail(new + BEFORE) if worth or flooded else []
        if not worth and not any(_worth(line) for line in lines):
            return
        for finding in findings(lines, max(0, len(lines) - new)):
            if finding.key not in self._told:
                self._told.add(finding.key)
                yield finding


def _worth(line: str) -> bool:
    data = line.encode()
    return any(needle in data for needle in NEEDLES)


def findings(lines: list[str], first: int) -> Iterator[Finding]:
    """Known failures in `lines` from number `first` on; those before it only say what they belong to.

    What says that something failed, but not why, is left out: the reason of an end has it.
    """
    from entrypoint.supervise.failures.lines import numbered_lines
    from entrypoint.supervise.failures.records import KNOWN_FAILURES
    from entrypoint.supervise.failures.tracebacks import all_raised, last_sign_of_work

    numbered = [*numbered_lines(lines)]
    log = [line for _, line in numbered]
    number = [n for n, _ in numbered]
    # What it has gone on working after is over.
    first = max(first, *(number[at] + 1 for at in [last_sign_of_work(log)] if at >= 0), 0)
    raised = [r for r in all_raised(log) if number[r.at] >= first][-MATCHED:]
    others = [
        line
        for n, line in numbered
        if n >= first
        and line.exception is None
        and any(needle in line.whole.encode("utf-8", "replace") for needle in NEEDLES)
    ][-MATCHED:]
    for known in KNOWN_FAILURES:
        if known.vague:
            continue
        told = next((str(r) for r in raised if known.signature.tells(str(r), r.what)), None)
        if told is None:
            told = next((line.whole for line in others if known.signature.matches(line)), None)
        if told is not None:
            yield Finding(known.key, str(known), told if len(told) <= QUOTED else f"{told[: QUOTED - 1]}…")
