"""What is known about the failure that a log's last lines show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from entrypoint.supervise.failures.lines import Level, LogLine, read_lines
from entrypoint.supervise.failures.records import KNOWN_FAILURES
from entrypoint.supervise.failures.signature import KnownFailure
from entrypoint.supervise.failures.tracebacks import Raised, last_sign_of_work, last_words

__all__ = [
    "KNOWN_FAILURES",
    "Explanation",
    "KnownFailure",
    "explain",
    "failure_hint",
    "lost_rank",
    "lost_rank_of",
]

QUOTED = 300
"""Characters of an exception that are quoted."""


@dataclass(frozen=True)
class Explanation:
    """What the lines of a process say of its end."""

    known: KnownFailure | None
    """What is known about it; None: nothing is."""
    sure: bool
    """The exception that ended it says so; else only another line does."""
    raised: Raised | None
    """The exception that ended it."""
    at: int
    """Number of the line, of those that were read, that tells it."""

    def __str__(self) -> str:
        quote = f"its last exception: {_quote(self.raised)}" if self.raised else ""
        if self.known is None:
            return quote
        if self.sure:
            return str(self.known)
        return f"perhaps {self.known}{'; ' if quote else ''}{quote}"


def failure_hint(lines: Iterable[str]) -> str | None:
    """Why the process that wrote `lines` (its last ones) ended; None when they do not say.

    Known for sure is only what the exception that ended it says. What other lines say is introduced by
    "perhaps", and the exception is quoted beside it; where nothing is known, it is quoted alone.
    """
    found = explain([*read_lines(lines)])
    return None if found is None else str(found)


def explain(log: Sequence[LogLine]) -> Explanation | None:
    """The same with its parts."""
    ended_by = last_words(log)
    known = _known_exception(ended_by)
    if known is not None and ended_by is not None and not known.vague:
        return Explanation(known, True, ended_by, ended_by.at)
    beside = _known_line(log)
    if beside is not None and (known is None or not beside[0].vague):
        return Explanation(beside[0], False, ended_by, beside[1])
    if ended_by is None:
        return None
    return Explanation(known, known is not None, ended_by, ended_by.at)


def _known_exception(raised: Raised | None) -> KnownFailure | None:
    """The record of the exception, or of one that it came from."""
    if raised is None:
        return None
    texts = [text for each in (raised, *reversed(raised.before)) for text in (str(each), each.what)]
    return next((known for known in KNOWN_FAILURES if known.signature.tells(*texts)), None)


def _known_line(log: Sequence[LogLine]) -> tuple[KnownFailure, int] | None:
    """The record of what other lines say since the engine last worked, and the first such line's number."""
    first = last_sign_of_work(log) + 1
    since = [(n, line) for n, line in enumerate(log[first:], first) if line.exception is None]
    for known in KNOWN_FAILURES:
        if (at := next((n for n, line in since if known.signature.matches(line)), None)) is not None:
            return known, at
    return None


def _quote(raised: Raised) -> str:
    text = str(raised)
    return text if len(text) <= QUOTED else f"{text[: QUOTED - 1]}…"


_LOST_RANK = re.compile(
    r"gloo/transport/tcp/\S+ Read error \[(?P<gloo_reset>[^\]\s]+)\]:\d+: Connection reset by peer"
    r"|gloo/transport/tcp/\S+ Connection closed by peer \[(?P<gloo_closed>[^\]\s]+)\]:\d+"
    r"|NCCL WARN .*Connection closed by remote peer (?P<nccl_closed>[^<\s]+)<\d+>"
    r"|NCCL WARN .*Call to \w+ (?:from|to) (?P<nccl_reset>[^<\s]+)<\d+> failed : Connection reset by peer"
)
"""A rank says that its connection to another one broke. A time-out is not meant: that one may live."""


def lost_rank(lines: Iterable[str]) -> str | None:
    """The address of the first rank whose loss the end of a log shows; None when it shows none."""
    return lost_rank_of([*read_lines(lines)])


def lost_rank_of(log: Sequence[LogLine]) -> str | None:
    """The same of lines that have been read."""
    ended_by = last_words(log)
    if ended_by is not None and not ended_by.follows:
        return None  # it has a cause of its own
    for line in log[last_sign_of_work(log) + 1 :]:
        if (line.level is None or line.level >= Level.ERROR) and (found := _LOST_RANK.search(line.whole)):
            return next(text for text in found.groups() if text is not None)
    return None
