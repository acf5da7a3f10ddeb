"""Bytes of a child's output to whole lines, and whole lines to what is printed.

Everything here works on blocks (many lines at once) with C-speed byte operations; only a block that
holds a carriage return, an escape sequence or an over-long line takes a slower path.
"""

from __future__ import annotations

import json.encoder
import re
from datetime import datetime, timezone
from typing import NamedTuple

MAX_LINE = 1 << 20
"""Bytes of one line that are held back waiting for its end; a longer line is printed in pieces."""

_EMPTY_BEFORE_CR = re.compile(rb"(^|[\n\r])\r+")
# CSI, OSC (closed by BEL or ST) and the two-byte escapes; none of them reaches over a line's end. Last a lone
# ESC: what stands around a sequence that is taken out of its middle would be one itself.
_ESCAPE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[ -/]*[0-Z\\^-~])|\x1b")
_COLOUR = re.compile(rb"(\x1b\[[0-?]*[ -/]*m)|" + _ESCAPE.pattern)
_COLOURED_LINE = re.compile(rb"(\x1b[^\n]*)\n")
_quote = json.encoder.encode_basestring
"""C-coded JSON string literal of a str; leaves non-ASCII characters readable."""


class Block(NamedTuple):
    """One or more lines, each ended by a newline; pieces of an over-long line come one by one."""

    data: bytes
    continues: bool = False
    """The line is the continuation of the piece before."""
    unfinished: bool = False
    """The line goes on in the next piece."""


def stamp(when: float) -> str:
    """Unix time in seconds as ``2026-11-25T14:04:24.513Z``."""
    return datetime.fromtimestamp(when, timezone.utc).isoformat(timespec="milliseconds")[:-6] + "Z"


def strip_escapes(data: bytes) -> bytes:
    """`data` without ANSI escape sequences."""
    return _ESCAPE.sub(b"", data) if b"\x1b" in data else data


class LineSplitter:
    r"""Splits a byte stream at \n, \r\n and bare \r, however the stream is cut into chunks.

    A segment ended by a bare \r is a line of its own (progress bars), dropped when empty. Blank
    lines ended by \n stay. A line longer than `max_line` bytes comes in pieces, cut between two
    UTF-8 characters. At most `max_line` bytes are held back.
    """

    def __init__(self, max_line: int = MAX_LINE) -> None:
        if max_line < 4:
            raise ValueError("max_line must hold one UTF-8 character: at least 4")
        self._max = max_line
        self._tail: list[bytes] = []
        self._tail_size = 0
        self._skip_newline = False
        """The last line was printed at its \\r; a \\n that follows belongs to it."""
        self._continues = False
        """The beginning of the line in the tail has been printed already."""

    @property
    def pending(self) -> int:
        """Bytes held back, waiting for the end of their line."""
        return self._tail_size

    def feed(self, chunk: bytes) -> list[Block]:
        """The lines that `chunk` completes, in order."""
        if self._skip_newline and chunk:
            self._skip_newline = False
            if chunk[:1] == b"\n":
                chunk = chunk[1:]
        has_return = b"\r" in chunk or self._tail == [b"\r"]
        if not has_return:
            cut = chunk.rfind(b"\n") + 1
            if not cut:
                return self._hold(chunk)
            block, rest = chunk[:cut], chunk[cut:]
            if self._tail:
                block = b"".join((*self._tail, block))
        else:
            block, rest = self._normalise(b"".join((*self._tail, chunk)))
        self._tail.clear()
        self._tail_size = 0
        return self._cut(block) + self._hold(rest)

    def flush_idle(self) -> list[Block]:
        """What is held back now, although its line has not ended: for a stream gone quiet."""
        if not self._tail or self._tail == [b"\r"]:
            return []
        data = b"".join(self._tail)
        self._tail.clear()
        self._tail_size = 0
        blocks = self._cut(data + b"\n")
        self._continues = True
        blocks[-1] = blocks[-1]._replace(unfinished=True)
        return blocks

    def finish(self) -> list[Block]:
        """The unterminated rest at the end of the stream."""
        data = b"" if self._tail == [b"\r"] else b"".join(self._tail)
        self._tail.clear()
        self._tail_size = 0
        return self._cut(data + b"\n") if data else []

    def _normalise(self, data: bytes) -> tuple[bytes, bytes]:
        """Complete lines of `data`, all ended by newlines, and the rest."""
        held = b""
        if data.endswith(b"\r"):
            if (len(data) > 1 and data[-2] not in b"\r\n") or (len(data) == 1 and self._continues):
                self._skip_newline = True
            else:
                # An empty line or an empty segment: only the next byte tells which.
                data, held = data[:-1], b"\r"
        data = data.replace(b"\r\n", b"\n")
        if self._continues and data[:1] == b"\r":
            data = b"\n" + data[1:]  # ends the line whose beginning has been printed
        data = _EMPTY_BEFORE_CR.sub(rb"\1", data).replace(b"\r", b"\n")
        if held:
            return data, held
        cut = data.rfind(b"\n") + 1
        return data[:cut], data[cut:]

    def _hold(self, rest: bytes) -> list[Block]:
        if not rest:
            return []
        self._tail.append(rest)
        self._tail_size += len(rest)
        if self._tail_size <= self._max:
            return []
        data = b"".join(self._tail)
        blocks, data = self._pieces(data)
        self._tail[:] = [data]
        self._tail_size = len(data)
        return blocks

    def _cut(self, block: bytes) -> list[Block]:
        """`block` of complete lines, with over-long lines cut into pieces."""
        if not block:
            return []
        if not self._continues and (len(block) <= self._max or not self._has_long_line(block)):
            return [Block(block)]
        blocks: list[Block] = []
        start = 0
        while start < len(block):
            end = block.index(b"\n", start)
            if not self._continues and end - start <= self._max:
                if not self._has_long_line(block[start:]):
                    blocks.append(Block(block[start:]))
                    return blocks
                blocks.append(Block(block[start : end + 1]))
            else:
                pieces, last = self._pieces(block[start:end])
                blocks += pieces
                # Nothing came after the piece already printed: its line simply ended there.
                if last or not self._continues:
                    blocks.append(Block(last + b"\n", self._continues))
                self._continues = False
            start = end + 1
        return blocks

    def _has_long_line(self, block: bytes) -> bool:
        start = 0
        while len(block) - start > self._max + 1:
            end = block.rfind(b"\n", start, start + self._max + 1)
            if end < 0:
                return True
            start = end + 1
        return False

    def _pieces(self, line: bytes) -> tuple[list[Block], bytes]:
        """Full pieces of a `line` without its end, and what is left of it (at most `max_line`)."""
        blocks: list[Block] = []
        start = 0
        while len(line) - start > self._max:
            end = start + self._max
            for back in range(4):
                if line[end - back] & 0xC0 != 0x80:
                    end -= back
                    break
            blocks.append(Block(line[start:end] + b"\n", self._continues, unfinished=True))
            self._continues = True
            start = end
        return blocks, line[start:]


class Formatter:
    """How lines are printed: `name | line`, or one JSON object per line.

    `log_format` is `text` or `json`. Colours stay only where `colours` is true (a terminal), and
    then moving escapes still go and every coloured line ends its colour. JSON never has escapes.
    """

    def __init__(
        self, log_format: str = "text", *, width: int = 0, colours: bool = False, dated: str = ""
    ) -> None:
        """`dated`: whose lines have their time before them, where they are text."""
        if log_format not in ("text", "json"):
            raise ValueError(f"unknown log format: {log_format}")
        self.json = log_format == "json"
        self.width = width
        self.colours = colours and not self.json
        self.dated = dated
        self._prefixes: dict[str, tuple[bytes, bytes, bytes]] = {}

    def format(self, name: str, block: Block, when: float) -> bytes:
        """`block` of process `name` as it is printed; `when` is Unix time in seconds."""
        data = block.data
        if b"\x1b" in data:
            data = self._escapes(data)
        if self.json:
            return self._json(name, block, data, when)
        if name == self.dated:
            head = f"{stamp(when)} {name:<{self.width}} | ".encode()
            return b"".join(head + line for line in data.splitlines(keepends=True))
        prefixes = self._prefixes.get(name)
        if prefixes is None:
            prefix = f"{name:<{self.width}} | ".encode()
            prefixes = self._prefixes[name] = (prefix, prefix[:-1] + b"+ ", b"\n" + prefix)
        first, continued, between = prefixes
        # Every newline gets the prefix of the line after it; the last one's is left out again.
        # Two copies of the data in all: this is the hot path.
        body = memoryview(data.replace(b"\n", between))[: -len(first)]
        return b"".join((continued if block.continues else first, body))

    def lines_of(self, name: str, data: bytes, printed: bytes) -> int:
        """How many lines `data` of process `name` has, which is printed as `printed`.

        By how much longer that is, where each line got a prefix: counting takes as long as printing.
        """
        prefixes = self._prefixes.get(name)
        if prefixes is None or self.json or b"\x1b" in data:
            return data.count(b"\n")
        return (len(printed) - len(data)) // len(prefixes[0])

    def _escapes(self, data: bytes) -> bytes:
        if not self.colours:
            return _ESCAPE.sub(b"", data)
        return _COLOURED_LINE.sub(rb"\1" + b"\x1b[0m\n", _COLOUR.sub(rb"\1", data))

    def _json(self, name: str, block: Block, data: bytes, when: float) -> bytes:
        head = f'{{"ts": "{stamp(when)}", "process": {_quote(name)}, "line": '
        tail = ', "partial": true}\n' if block.unfinished else "}\n"
        lines = data[:-1].decode("utf-8", "replace").split("\n")
        return (head + (tail + head).join(map(_quote, lines)) + tail).encode()
