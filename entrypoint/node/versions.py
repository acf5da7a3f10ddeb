"""Comparing release numbers of Python packages, as far as the plan needs it.

`packaging` would do more; it is not among the runner's dependencies, and start-up is counted in milliseconds.
"""

from __future__ import annotations

import re

_PATTERN = re.compile(
    r"^\s*v?(?P<release>\d+(?:\.\d+)*)"
    r"(?:[-_.]?(?P<pre>alpha|a|beta|b|rc|dev)[-_.]?(?P<pre_n>\d*))?"
    r"(?:[-_.]?post[-_.]?(?P<post>\d*))?"
)
_PRE = {"dev": -4, "a": -3, "alpha": -3, "b": -2, "beta": -2, "rc": -1}

Key = tuple[tuple[int, ...], int, int, int]


def key(version: str) -> Key | None:
    """A sortable form of `version` (``0.5.6.post2``, ``0.6.0rc1``, ``1.0+cu129``); None if it is not one."""
    match = _PATTERN.match(version)
    if match is None:
        return None
    numbers = [int(part) for part in match["release"].split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    pre = _PRE[match["pre"]] if match["pre"] else 0
    post = int(match["post"] or 0) if match["post"] is not None else -1
    return tuple(numbers), pre, int(match["pre_n"] or 0), post


def older(version: str | None, than: str) -> bool | None:
    """Whether `version` comes before `than`; None when `version` is unknown or not a version."""
    limit = key(than)
    own = key(version) if version is not None else None
    if limit is None:
        raise ValueError(than)
    return None if own is None else own < limit


def newer(version: str | None, than: str) -> bool:
    """Whether `version` is known to come after `than`."""
    own, limit = key(version) if version is not None else None, key(than)
    return own is not None and limit is not None and own > limit
