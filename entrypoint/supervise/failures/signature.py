"""What makes a line of a log the event itself, and what is known about it then. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from entrypoint.supervise.failures.lines import Level, LogLine, read_line


@dataclass(frozen=True)
class Signature:
    """What a line must be to count: an exception, or grave enough and of the right writer."""

    pattern: re.Pattern[str]
    """Searched for in the exception, or in the whole line."""
    raised: bool = False
    """Only an exception counts."""
    writer: str = ""
    """Only this writer's lines count, and exceptions; empty: anybody's."""
    least: Level = Level.ERROR
    """The least level that counts. A line whose writer says none counts too."""

    def tells(self, *texts: str) -> bool:
        """Whether one of `texts`, an exception in its forms, is the event itself."""
        return any(self.pattern.search(text) for text in texts)

    def search(self, line: str) -> bool:
        """Whether `line`, as the process wrote it, is the event itself."""
        return self.matches(read_line(line))

    def matches(self, line: LogLine) -> bool:
        """The same for a line that has been read."""
        if line.repeats:
            return False
        if line.exception is not None:
            return self.pattern.search(line.exception) is not None
        if self.raised or (self.writer and line.writer != self.writer):
            return False
        if line.level is not None and line.level < self.least:
            return False
        # Indented lines are code and stacks: they quote messages without anything having happened.
        return not line.whole[:1].isspace() and self.pattern.search(line.whole) is not None


@dataclass(frozen=True)
class KnownFailure:
    """One failure that a log gives away."""

    key: str
    signature: Signature
    cause: str
    remedy: str
    source: str
    """Where the wording is from: a release's file, or an upstream thread."""
    vague: bool = False
    """It says that something failed, not why: a better known line beside it is the cause."""

    def __str__(self) -> str:
        return f"{self.cause}: {self.remedy}"


def known(
    key: str,
    signature: str,
    cause: str,
    remedy: str,
    source: str,
    *,
    raised: bool = False,
    writer: str = "",
    least: Level = Level.ERROR,
    vague: bool = False,
) -> KnownFailure:
    """A record of the table: `signature` is a regular expression, the rest are the fields of both classes."""
    counts = Signature(re.compile(signature), raised, writer, least)
    return KnownFailure(key, counts, cause, remedy, source, vague)
