"""One line of a log: who wrote it, at which level, and whether it only repeats what a user sent.

Knows the shapes that SGLang 0.5.6 to 0.5.23, Dynamo 0.8 to 1.6 (text and JSONL), NCCL, UCX, NIXL, PyTorch,
Mooncake and the servers write. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from entrypoint.base.foreign import from_json


class Level(IntEnum):
    """How grave a line says that it is."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


_LEVELS = {
    **dict.fromkeys(
        ("TRACE", "DEBUG", "CALL", "REQ", "DATA", "ASYNC", "FUNC", "POLL", "TRC", "DBG"), Level.DEBUG
    ),
    **dict.fromkeys(("INFO", "VERSION", "NOTICE", "DIAG", "INF", "I", "PRINT"), Level.INFO),
    **dict.fromkeys(("WARN", "WARNING", "WRN", "W"), Level.WARNING),
    **dict.fromkeys(("ERROR", "CRITICAL", "FATAL", "ABORT", "ERR", "FTL", "E", "F"), Level.ERROR),
    **dict.fromkeys(("CRIT", "ALERT", "EMERG", "PANIC", "DPANIC"), Level.ERROR),
}

_TIME = r"\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d[^\s\]]*"
_WORD = r"TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|CRITICAL|FATAL"
_HEADS: tuple[tuple[str, re.Pattern[str]], ...] = (
    # node:pid:tid [device] file:line NCCL WARN text; the place comes before or after, or not at all
    ("nccl", re.compile(rf"(?:\[{_TIME}\] ?)?\S+:\d+:\d+ \[-?\d+\] .{{0,120}}?\bNCCL (?P<level>[A-Z]+)\b ?")),
    # [seconds] [node:pid:thread] file.c:line UCX  ERROR text
    ("ucx", re.compile(r"\[[\d.]+\] \[[^\]]+\] .{0,80}?\bUCX +(?P<level>[A-Z]+) ")),
    # [date time TP0] text: SGLang's own format has no level
    ("sglang", re.compile(rf"\[{_TIME}(?: [\w-]+)*\] ?(?:(?P<level>{_WORD})\b:? ?)?")),
    # [pid] date time [INF] text
    ("nats", re.compile(rf"\[\d+\] {_TIME} \[(?P<level>[A-Z]{{3}})\] ")),
    # date time [emerg] pid#thread: text
    ("nginx", re.compile(rf"{_TIME} \[(?P<level>[a-z]+)\] \d+#\d+: ")),
    # [rank3]:[E1125 18:11:34.7 file.cpp:143] text
    ("torch", re.compile(r"(?:\[rank\d+\]: ?)?\[(?P<level>[IWEF])\d{3,4} \d\d:\d\d:[^\]]*\] ?")),
    # E20261125 18:11:34.7 pid file.cpp:143] text
    ("glog", re.compile(r"(?P<level>[IWEF])\d{4}(?:\d{4})? \d\d:\d\d:[^\]]*\] ?")),
    # time LEVEL text: Dynamo; with a name, a dash or a bar between them: Python's usual ones
    ("", re.compile(rf"\[?{_TIME}\s+(?:[-|] )?(?:\S+ (?:[-|] )?)??(?P<level>{_WORD})\b ?")),
    # LEVEL: text, LEVEL 11-25 18:11:34 text
    ("", re.compile(rf"(?P<level>{_WORD})(?::|(?= \d\d-\d\d ))\s?")),
)
_FORWARDED = re.compile(r"[\w.-]+ +\|[ +] ?")
"""What the runner, or Compose, puts before a process's lines."""
_BAR = re.compile(r".*\b\d+/\d+ \[[^\]]{0,80}\] ?")
"""A progress bar, to whose end a line may be glued."""

LONGEST = 4000
"""Characters of a line that are read."""

_REPEATED = re.compile(
    r"\b(?:Receive|Finish)(?: OpenAI)?: obj="
    r"|\b\w*(?:GenerateReqInput|EmbeddingReqInput|CompletionRequest|PreprocessedRequest|ResponsesRequest)\b"
    r"|['\"]?\b(?:messages|prompt|content|text|input_text|arguments)\b['\"]?\s*[:=]\s*[\[\"'{]"
    r"|\bServerArgs\(|\bserver_args=|\bUCX_\* env variables"
)
"""What a user sent, or what was set: words of failures in it are nobody's failure."""

_EXCEPTION = re.compile(
    r"(?:\[rank\d+\]: )?(?P<what>(?:[A-Za-z_]\w*\.)*(?:[A-Za-z_]\w*)?"
    r"(?:Error|Exception|Interrupt|Exit|Cancelled|Timeout|Failure)(?:: (?P<message>.*))?)$"
)
"""A traceback's last line, as Python prints it."""


@dataclass(frozen=True)
class LogLine:
    """One line, read."""

    text: str
    """Without its head."""
    whole: str
    """With it."""
    level: Level | None = None
    """None: its writer says none."""
    writer: str = ""
    """nccl, ucx, sglang …; empty: it cannot be told."""
    headed: bool = False
    """A head was recognised: the line begins a message."""
    repeats: bool = False
    """It repeats what a user sent or what was set. Not looked for below WARNING."""
    exception: str | None = None
    """The exception that the line ends a traceback with: name and message."""


def read_line(line: str) -> LogLine:
    """What `line` is. NCCL has no level above WARN, which it uses for what fails: that counts as an error."""
    line = line[match.end() :] if (match := _FORWARDED.match(line)) else line
    if line.startswith("{") and (found := _from_json(line)) is not None:
        return found
    line = line[:LONGEST]
    if "%" in line and "|" in line and (match := _BAR.match(line)):
        line = line[match.end() :]
    for writer, head in _HEADS:
        match = head.match(line)
        if match is None:
            continue
        word = match["level"]
        level = None if word is None else _LEVELS.get(word.upper(), Level.INFO)
        if writer == "nccl" and level is Level.WARNING:
            level = Level.ERROR
        # Most lines of a busy engine are INFO: they are never a cause, whatever they repeat.
        repeats = level not in (Level.DEBUG, Level.INFO) and _REPEATED.search(line) is not None
        return LogLine(line[match.end() :], line, level, writer, True, repeats)
    exception = _EXCEPTION.match(line)
    if exception is not None:
        return LogLine(line, line, exception=exception["what"])
    return LogLine(line, line, repeats=_REPEATED.search(line) is not None)


def _from_json(line: str) -> LogLine | None:
    try:
        record = from_json(line)
    except ValueError:
        return None
    if not isinstance(record, dict):
        return None
    word = next(
        (record[k] for k in ("level", "severity", "levelname") if isinstance(record.get(k), str)), None
    )
    text = next((record[k] for k in ("message", "msg") if isinstance(record.get(k), str)), None)
    if word is None or text is None:
        return LogLine("", line, Level.INFO, "", True, True)
    target = record.get("target") or record.get("logger") or ""
    error = f": {record['error']}" if isinstance(record.get("error"), str) else ""
    # Half of a character pair ("\\ud800") is JSON, and no text that can be written anywhere.
    whole, text = (part.encode("utf-8", "replace").decode() for part in (f"{target}: {text}{error}", text))
    text = whole if error else text
    return LogLine(
        text, whole, _LEVELS.get(word.upper(), Level.INFO), "", True, _REPEATED.search(text) is not None
    )


def read_lines(lines: Iterable[str]) -> Iterator[LogLine]:
    """The lines of a log, without what only repeats requests and settings, in several lines too.

    A message of several lines within one JSON record comes as so many lines.
    """
    return (line for _, line in numbered_lines(lines))


def numbered_lines(lines: Iterable[str]) -> Iterator[tuple[int, LogLine]]:
    """The same, each with the number that it has among `lines`."""
    repeating = False
    for number, raw in enumerate(lines):
        line = read_line(raw)
        if line.headed:
            # A request that goes on in the next lines ends within none of its brackets and quotes.
            repeating = line.repeats and not line.whole.rstrip().endswith((")", "}", "]", "'", '"', ","))
        if repeating or line.repeats:
            continue
        first, *more = line.text.split("\n")
        if not more:
            yield number, line
            continue
        head = f"{line.whole.split(first, 1)[0]}{first}"
        yield number, LogLine(first, head, line.level, line.writer, True)
        for each in more:
            yield number, read_line(each)
