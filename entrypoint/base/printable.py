"""Text without what a terminal would obey: values, logs and other runners may hold anything."""

from __future__ import annotations

import re

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


_PASSWORD = re.compile(r"(://[^/@\s:]*:)[^/@\s]+@")
"""Of a URL."""


def without_passwords(text: str) -> str:
    """`text` with every URL's password replaced by ``***``: a person may set one where none belongs."""
    return _PASSWORD.sub(r"\1***@", text)


def clean(text: object) -> str:
    """`text` in one line, without control characters."""
    return _UNPRINTABLE.sub(" ", str(text))
