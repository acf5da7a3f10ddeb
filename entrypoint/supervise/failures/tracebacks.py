"""The exceptions in a log, and which of them ended its process. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from entrypoint.supervise.failures.lines import LogLine

_BEGIN = "Traceback (most recent call last):"
_LAST = re.compile(r"(?:\[rank\d+\]: )?(?P<what>(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:: .*)?)$")
"""A traceback's last line, whatever the exception is called."""
_CHAIN = re.compile(r"(?:During handling of the above exception|The above exception was the direct cause)")
_CHILD = re.compile(r"Process \S+:$")
"""What multiprocessing prints before the traceback that ended a child."""
_NATIVE = re.compile(
    r"\s+what\(\):\s+(?P<what>\S.*)|(?P<python>Fatal Python error: .*)"
    r"|thread '.*' .*(?P<panic>panicked at .*)"
)
"""C++'s terminate, the interpreter's own, Rust's panic."""
_OF_NCCL = re.compile(r"nccl\w+Error: ")
"""The second line of the message of PyTorch's DistBackendError; the reason follows it."""
_ASKED = re.compile(r"(?:\w+\.)*(?:KeyboardInterrupt|SystemExit|CancelledError|GeneratorExit)\b")
_WORKS = re.compile(
    r"\b(?:Prefill|Decode) batch\b|Successfully registered (?:LLM|model)|Model registration succeeded"
    r"|SIGTERM received\.|Received shutdown signal"
)
"""The engine works, or was alive to hear that it should stop."""
_STARTS = re.compile(
    r"Init (?:torch distributed|parallel) (?:begin|ends)|Load weight (?:begin|end)|KV Cache is allocated"
    r"|Memory pool end|[Gg]raph (?:begin|end)\b|\bmax_total_num_tokens=\d"
)
"""The start goes on."""
_FOLLOWS = re.compile(
    r"Rank \d+ scheduler (?:died|is dead)|EOFError|Initialization failed\. Please see the error"
    r"|Connection (?:was )?(?:reset|closed|aborted)|Broken ?[Pp]ipe|ncclRemoteError|remote process exited"
    r"|Connection was likely closed|failed to recv, got 0 bytes|ConnectionResetError"
)
"""Exceptions that another process's end brings about."""

MESSAGE_LINES = 12
"""Lines of an exception's message that are read."""


@dataclass
class Raised:
    """An exception that a log shows."""

    at: int
    """Number of its last line within the log."""
    what: str
    """Name and message; further lines of the message follow it."""
    fatal: bool
    """The log says that it ended its process."""
    code: str = ""
    """The line of code that raised it."""
    before: list[Raised] = field(default_factory=list)
    """Those it came from."""

    @property
    def follows(self) -> bool:
        """It is brought about by another process's end."""
        return _FOLLOWS.search(self.what) is not None

    def __str__(self) -> str:
        first = self.what.split("\n")[0]
        if self.code and ":" not in first:
            first += f" at `{self.code}`"  # a bare AssertionError says nothing
        return first


def last_sign_of_work(lines: Sequence[LogLine]) -> int:
    """Number of the last line that only a working engine writes, -1 when there is none."""
    return _last(lines, _WORKS)


def _last(lines: Sequence[LogLine], pattern: re.Pattern[str]) -> int:
    return max((n for n, line in enumerate(lines) if line.headed and pattern.search(line.text)), default=-1)


class _Reader:
    """Collects the exceptions of one log, line by line."""

    def __init__(self) -> None:
        self.found: list[Raised] = []
        self._open = False
        self._fatal = False
        self._code = ""
        self._child = False
        self._chain: list[Raised] = []
        self._more = 0

    def feed(self, number: int, line: LogLine) -> None:
        text = line.text
        if text.endswith(_BEGIN):
            self._open, self._code, self._more = True, "", 0
            self._fatal = self._child or "hit an exception" in text
            self._child = False
            return
        if line.headed:
            self._more = 0
            return  # another writer, within the traceback
        native = _NATIVE.match(text)
        if native:
            self._add(number, next(filter(None, native.groups())), fatal=True)
        elif self._open and text[:1].isspace():
            if not text.lstrip().startswith(("File ", "^", "~")):
                self._code = text.strip()
        elif _CHAIN.match(text):
            self._chain = self.found[-1:]
            self._more = 0
        elif self._more and _OF_NCCL.match(text):
            self.found[-1].what += f"\n{text}"
        elif line.exception is not None or (self._open and _LAST.match(text)):
            self._add(number, line.exception or text, self._fatal and self._open)
        elif not text.strip():
            self._more = 0 if not self._chain else self._more
        elif self._more:
            self.found[-1].what += f"\n{text}"
            self._more -= 1
        else:
            self._child = _CHILD.match(text) is not None

    def _add(self, number: int, what: str, fatal: bool) -> None:
        raised = Raised(number, what, fatal, self._code if self._open else "", self._chain)
        self._open, self._chain, self._code, self._more = False, [], "", MESSAGE_LINES
        for cause in raised.before:
            self.found.remove(cause)
        self.found.append(raised)


def all_raised(lines: Sequence[LogLine]) -> list[Raised]:
    """Every exception in `lines`, but those that only say that somebody was asked to stop."""
    reader = _Reader()
    for number, line in enumerate(lines):
        reader.feed(number, line)
    return [r for r in reader.found if not _ASKED.match(r.what)]


def last_words(lines: Sequence[LogLine]) -> Raised | None:
    """The exception that ended the process that wrote `lines`; None when the log shows none.

    Of several it is the first that a child of the engine died of and that is not brought about by another's
    end; without such a one the last after which nothing went on.
    """
    raised = all_raised(lines)
    went_on = max(_last(lines, _WORKS), _last(lines, _STARTS))
    fatal = [r for r in raised if r.fatal]
    unhandled = [r for r in raised if not r.fatal and r.at > went_on]
    own = [r for r in fatal if not r.follows]
    if own:
        return own[0]
    own = [r for r in unhandled if not r.follows]
    return next(iter([*reversed(own), *fatal, *reversed(unhandled)]), None)
