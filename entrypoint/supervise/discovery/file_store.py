"""Dynamo's file store: who has registered there completely, and keeping the keys of living workers.

A key is written in place, so for a moment it is half there. A key that was not touched for 10 s counts as a
dead worker's: a frontend deletes it, and the worker, which never learns of it, is never asked again. A worker
touches its keys itself, but not while it is held up: one that compiled kernels for its first request was for
10.3 s (Dynamo 1.3.1, SGLang 0.5.14).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

from entrypoint.base.foreign import from_json

INTERVAL = 2.0
"""Seconds between two rounds."""


EXPIRY = 10.0
"""Seconds after which an untouched key counts as a dead worker's."""


def registered(directory: str) -> dict[str, int]:
    """Workers whose instance and model card are both there, whole and fresh, by component."""
    counts: dict[str, int] = {}
    cards = Path(directory, "v1/mdc")
    for card in cards.iterdir() if cards.is_dir() else ():
        words = unquote(card.name).split("/")
        if len(words) == 4 and words[2] == "generate" and _whole(card) and _whole(_instance_of(card)):
            counts[words[1]] = counts.get(words[1], 0) + 1
    return counts


def _instance_of(card: Path) -> Path:
    return card.parent.parent / "instances" / card.name


def _whole(key: Path) -> bool:
    try:
        fresh = time.time() - key.stat().st_mtime < EXPIRY
        return fresh and isinstance(from_json(key.read_text()), dict)
    except (OSError, ValueError):
        return False


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
