"""Keeps the keys of living workers in Dynamo's file store.

A key that was not touched for 10 s counts as a dead worker's: a frontend deletes it, and the worker, which
never learns of it, is never asked again. A worker touches its keys itself, but not while it is held up: one
that compiled kernels for its first request was for 10.3 s (Dynamo 1.3.1, SGLang 0.5.14).
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

INTERVAL = 2.0
"""Seconds between two rounds."""


def touch(directory: str) -> None:
    """Make every file under `directory` as new as now. One that goes away meanwhile stays away."""
    for path, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                os.utime(Path(path, name))


class Keeper:
    """Touches the stores in a thread of its own, for as long as `alive` says that their workers live."""

    def __init__(self, stores: tuple[str, ...], alive: Callable[[], bool]) -> None:
        self._stores, self._alive = stores, alive
        self._end = threading.Event()

    def start(self) -> None:
        """Begin, if there is a store."""
        if self._stores:
            threading.Thread(target=self._run, name="file-store", daemon=True).start()

    def close(self) -> None:
        """Let the keys grow old."""
        self._end.set()

    def _run(self) -> None:
        while not self._end.wait(INTERVAL) and self._alive():
            for store in self._stores:
                touch(store)
