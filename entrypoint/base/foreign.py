"""JSON that somebody else wrote: a log's line, a server's answer, a file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

DEEPEST = 100
"""Levels of objects and arrays. Whoever walks through what was read may call itself for each."""


def from_json(text: str | bytes) -> Any:
    """What `text` says. ValueError: it is not JSON, not text, or nested deeper than DEEPEST."""
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [found]
    for _ in range(DEEPEST + 1):
        level = [inner for value in level for inner in _inside(value)]
        if not level:
            return found
    raise ValueError("it is nested too deeply")


def json_object(text: str) -> dict[str, Any]:
    """The JSON object that `text` is; empty: it is none."""
    try:
        found = from_json(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
