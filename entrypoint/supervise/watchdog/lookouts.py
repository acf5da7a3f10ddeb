"""A thread for each engine that is looked at, until it is forgotten."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Lookouts:
    """By the engine's name."""

    def __init__(self) -> None:
        self._ends: dict[str, threading.Event] = {}

    def start(self, name: str, thread: str, run: Callable[..., None], *arguments: Any) -> None:
        """Call `run(*arguments, end)` in a thread called `thread`; it leaves once `end` is set."""
        self.forget(name)
        end = self._ends[name] = threading.Event()
        threading.Thread(target=run, args=(*arguments, end), name=thread, daemon=True).start()

    def forget(self, name: str) -> None:
        """Look at `name` no more, if it was looked at."""
        if (end := self._ends.pop(name, None)) is not None:
            end.set()

    def close(self) -> None:
        """Look at nothing any more."""
        for name in [*self._ends]:
            self.forget(name)
