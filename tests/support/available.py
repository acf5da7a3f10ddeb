"""What a test needs from outside this repository, or the reason why it is not run."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import pytest

from bench.releases import UnavailableError

T = TypeVar("T")


def available(get: Callable[[], T]) -> T:
    """What `get` gives; where that is not to be had the test is skipped, or fails where CI is set."""
    try:
        return get()
    except UnavailableError as error:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(f"needed and not to be had: {error}")
        pytest.skip(str(error))
