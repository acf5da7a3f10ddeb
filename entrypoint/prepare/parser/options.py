"""In which releases an option exists: `options.txt`, made of every release's parser by bench/options.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).with_name("options.txt")
"""Lines of `command package first last option…`; `-` for a last release: the newest has it still. What every
release has, from the oldest to the newest, is left out."""


@dataclass(frozen=True)
class Span:
    """Releases that have an option."""

    package: str
    """`sglang` or `dynamo`."""
    first: str
    last: str
    """Empty: the newest still has it."""


def spans(command: str, flag: str) -> tuple[Span, ...]:
    """Where `flag` is an option of `command` (`dynamo.sglang`, …), unless that is everywhere or nowhere."""
    found = []
    for line in TABLE.read_text().splitlines() if TABLE.exists() else ():
        if not line.startswith(f"{command} "):
            continue
        _, package, first, last, *flags = line.split()
        if flag in flags:
            found.append(Span(package, first, "" if last == "-" else last))
    return tuple(found)
