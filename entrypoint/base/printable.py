"""Text without what a terminal would obey: values, logs and other runners may hold anything."""

from __future__ import annotations

import re

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def clean(text: object) -> str:
    """`text` in one line, without control characters."""
    return _UNPRINTABLE.sub(" ", str(text))
