"""A setting's value with where it came from, as plans and errors show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

REDACTED = "***"
"""Shown in place of a secret's value."""
HIDDEN: Mapping[str, bool] = {"hidden": True}
"""Metadata of a data class's field whose value is a secret: `repr=False` besides, and no plan shows it."""


@dataclass(frozen=True)
class Origin:
    """A setting's value and where it came from. A secret's value is never in it."""

    value: Any
    origin: str
    """`default`, `environment`, `file <path>` or `.env <path>`."""
