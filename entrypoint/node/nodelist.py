"""Slurm's host list expressions, such as ``nvl72d[001-018]``, read without Slurm.

The image holds no `scontrol`, so SLURM_JOB_NODELIST is expanded here, in the order that
`scontrol show hostnames` of Slurm 22.05 prints (tests compare the two). Text after a bracket
(``rack[1-2]-ib``) is accepted as well, although `scontrol` refuses it.
"""

from __future__ import annotations

import re
from itertools import product

MAX_HOSTS = 65536
"""Slurm's own limit for one range; here for the whole list, so that a typing error cannot fill memory."""

_RANGE = re.compile(r"([0-9]+)(?:-([0-9]+))?")
_NAME = re.compile(r"[^\[\],\s]*")


def expand(text: str) -> tuple[str, ...]:
    """The host names of a host list expression, in Slurm's order, duplicates kept.

    `ValueError` says what is wrong with `text`; an empty or blank list is empty.
    """
    hosts: list[str] = []
    for part in _split(text):
        hosts.extend(_expand_one(part, MAX_HOSTS - len(hosts)))
    return tuple(hosts)


def _split(text: str) -> list[str]:
    """The parts between the commas and white space that are outside brackets."""
    parts, depth, start = [], 0, 0
    for i, char in enumerate(text):
        if char == "[":
            if depth:
                raise ValueError(f"'[' inside a bracket at character {i + 1}")
            depth = 1
        elif char == "]":
            if not depth:
                raise ValueError(f"']' without '[' at character {i + 1}")
            depth = 0
        elif (char == "," or char.isspace()) and not depth:
            parts.append(text[start:i])
            start = i + 1
    if depth:
        raise ValueError("']' is missing")
    parts.append(text[start:])
    return [part for part in parts if part]


def _expand_one(part: str, room: int) -> list[str]:
    pieces = re.split(r"\[([^\]]*)\]", part)
    literals, ranges = pieces[0::2], [_numbers(text, room) for text in pieces[1::2]]
    for literal in literals:
        if not _NAME.fullmatch(literal):
            raise ValueError(f"'{literal}' is not part of a host name")
    count = 1
    for numbers in ranges:
        count *= len(numbers)
    if count > room:
        raise ValueError(f"more than {MAX_HOSTS} hosts")
    if not ranges:
        return [part]
    # Slurm expands all brackets but the last as a prefix, the first of them varying fastest,
    # and gives each prefix the whole last range.
    hosts: list[str] = []
    for outer in product(*reversed(ranges[:-1])):
        prefix = (
            "".join(lit + num for lit, num in zip(literals, reversed(outer), strict=False)) + literals[-2]
        )
        hosts.extend(prefix + number + literals[-1] for number in ranges[-1])
    return hosts


def _numbers(text: str, room: int) -> list[str]:
    """``001-003,7`` as ``001 002 003 7``; the low end of a range gives the width."""
    numbers: list[str] = []
    for item in text.split(","):
        match = _RANGE.fullmatch(item)
        if match is None:
            raise ValueError(f"'{item}' in '[{text}]' is neither a number nor a range such as 001-018")
        low, high = match[1], match[2] or match[1]
        first, last = int(low), int(high)
        if last < first:
            raise ValueError(f"the range '{item}' runs backwards")
        if last - first >= room:
            raise ValueError(f"more than {MAX_HOSTS} hosts")
        numbers.extend(f"{number:0{len(low)}d}" for number in range(first, last + 1))
    return numbers
