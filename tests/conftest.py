"""For all tests: the same examples on every machine, however slow it is, and how many run side by side."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("reproducible", derandomize=True, deadline=None, database=None)
settings.load_profile("reproducible")


def pytest_xdist_auto_num_workers() -> int:
    """Of ``-n auto``: three for two cores, since many tests wait for time-outs and processes."""
    return max(2, len(os.sched_getaffinity(0)) * 3 // 2)
