"""Whether every forwarded line came out, once and by itself."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Counts:
    """What became of the lines that were written."""

    lost: int
    joined: int
    """Printed lines that hold text of the writer but are not one whole line of it."""


def count_lines(data: bytes, prefix: re.Pattern[bytes], count: int) -> Counts:
    """Look for lines 0 to `count` - 1 of bench/log_forwarding.py's writer in `data`, each after `prefix`."""
    whole = re.compile(prefix.pattern + rb"line (\d{7}) x{66}")
    seen = bytearray(count)
    joined = 0
    for line in data.split(b"\n"):
        match = whole.fullmatch(line)
        if match and not seen[int(match[1])]:
            seen[int(match[1])] = 1
        elif b"xx" in line or b"line 0" in line:
            joined += 1
    return Counts(count - sum(seen), joined)
