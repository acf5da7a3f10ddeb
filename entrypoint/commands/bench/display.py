"""What a benchmark shows while it runs: one moving line on a terminal, quiet lines in a log."""

from __future__ import annotations

import shutil
import time
from typing import TextIO

from entrypoint.commands.bench.results import Progress

QUIET_INTERVAL = 30.0
"""Seconds between progress lines in a log."""


class Display:
    """Writes to `stream`; only a terminal gets a line that is overwritten."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._shown = False
        self._name, self._requests, self._begun, self._next = "", 0, 0.0, 0.0

    def say(self, text: str) -> None:
        """A line that stays."""
        self._clear()
        self._stream.write(f"bench: {text}\n")
        self._stream.flush()

    def begin(self, name: str, requests: int, what: str) -> None:
        """A test begins."""
        self._name, self._requests = name, requests
        self._begun = time.monotonic()
        self._next = self._begun + QUIET_INTERVAL
        self.say(f"{name}: {what}, {requests} requests")

    def update(self, progress: Progress) -> None:
        """Show how far the test is."""
        if self._live:
            width = 24
            filled = width * min(progress.done, self._requests) // self._requests
            bar = "█" * filled + "·" * (width - filled)
            line = f"       {bar} {self._words(progress)}"
            self._stream.write("\r\033[K" + line[: shutil.get_terminal_size().columns - 1])
            self._stream.flush()
            self._shown = True
        elif time.monotonic() >= self._next:
            self._next += QUIET_INTERVAL
            self.say(f"{self._name}: {self._words(progress)}")

    def note(self, text: str) -> None:
        """Something that happens to the test."""
        self.say(f"{self._name}: {text}")

    def end(self, result: str) -> None:
        """The test is over."""
        self.say(f"{self._name}: {result}")

    def _words(self, progress: Progress) -> str:
        seconds = int(time.monotonic() - self._begun)
        failed = f", {progress.failed} failed" if progress.failed else ""
        if progress.done:
            doing = f"{progress.done} of {self._requests} requests{failed}"
        elif progress.warmup:
            doing = f"warm-up, {progress.warmup} requests"
        else:
            doing = "starting"
        return f"{doing}, {seconds} s"

    def _clear(self) -> None:
        if self._shown:
            self._stream.write("\r\033[K")
            self._shown = False
