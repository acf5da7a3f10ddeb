"""A setting's value with where it came from, as plans and errors show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

REDACTED = "***"
"""Shown in place of a secret's value."""


@dataclass(frozen=True)
class Origin:
    """A setting's value and where it came from. A secret's value is never in it."""

    value: Any
    origin: str
    """`default`, `environment`, `file <path>` or `.env <path>`."""
