"""One fault of the night: a deployment, what is done to it, and who names it when."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.deployment import Deployment, last_line
from tests.support.runner import Runner

LIMIT = 75.0
"""Seconds from the fault for which a named cause is waited for."""
SOON = 30.0
"""Seconds within which it should have come."""
AFTERWARDS = 90.0
"""Seconds that containers which end because of it may take."""
OWN = re.compile(r"(?:\S+Z )?(?:runner +\| |glm47-runner: )(?P<text>.*)")
"""A line of the runner's own."""


@dataclass(frozen=True)
class Ground:
    """What the scenes stand on."""

    out: Path
    model: Path
    """A model directory; scenes copy it before they harm it."""

    def room(self, name: str) -> Path:
        """A directory of a scene's own."""
        place = self.out / name.replace(" ", "-")
        place.mkdir(parents=True, exist_ok=True)
        return place


@dataclass
class Told:
    """What an engineer got to see."""

    seconds: float | None = None
    """From the fault to the first line that names it; None: none came."""
    text: str = ""
    where: str = ""
    """`log` or `status`, and whose."""
    ends: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Exit code and last line of each container that ended."""


@dataclass(frozen=True)
class Scene:
    """One fault."""

    name: str
    engine: str
    """What answers requests in it."""
    named: str
    """Regular expression: a line that names the cause rightly."""
    follows: str
    """The same for last lines of other containers, which end because of it; empty: none does."""
    play: Callable[[Scene, Ground], Told]

    def rightly(self, told: Told) -> bool:
        """Named in time, and nothing else blamed by a container that ended."""
        return told.seconds is not None and told.seconds <= SOON and not self.wrong(told)

    def wrong(self, told: Told) -> list[str]:
        """Last lines that name something else."""
        right = re.compile("|".join(filter(None, (self.named, self.follows))))
        return [text for code, text in told.ends.values() if code and not right.search(text)]


class Eye:
    """Reads what the runners of a deployment say from now on."""

    def __init__(self, scene: Scene, it: Deployment) -> None:
        self._scene, self._it = scene, it
        self._read = {name: len(runner.lines) for name, runner in it.runners.items()}
        self.began = time.monotonic()
        """When the fault was made (monotonic seconds)."""

    def told(self, *ending: str) -> Told:
        """What names the cause, and how the containers `ending` end."""
        told = Told()
        right = re.compile(self._scene.named)
        while told.seconds is None and (now := time.monotonic()) - self.began < LIMIT:
            for where, text in self._said():
                if right.search(text):
                    told.seconds, told.text, told.where = round(now - self.began, 1), text, where
                    break
            else:
                time.sleep(0.1)
        end = time.monotonic() + AFTERWARDS
        while time.monotonic() < end and not all(self._it.ended(name) for name in ending):
            time.sleep(0.1)
        for name in self._it.runners:
            if self._it.ended(name):
                told.ends[name] = self._end(name)
        for name in ending:
            told.ends.setdefault(name, (-1, "it did not end"))
        return told

    def _end(self, name: str) -> tuple[int, str]:
        runner = self._it.runners[name]
        code = runner.wait(30)
        own = [found["text"] for line in runner.lines if (found := OWN.match(line))]
        return code, own[-1] if own else last_line(runner)

    def _said(self) -> Iterator[tuple[str, str]]:
        for name, runner in self._it.runners.items():
            lines = runner.lines[self._read.get(name, 0) :]
            for line in lines:
                if found := OWN.match(line):
                    yield f"log of {name}", found["text"]
            yield from ((f"/status of {name}", text) for text in _status(runner))


def _status(runner: Runner) -> Iterator[str]:
    code, status = runner.get("/status")
    if code != 200 or not isinstance(status, dict):
        return
    slow = (each["text"] for each in status.get("slow", ()))
    for text in (*status.get("waiting_for", ()), status.get("behind"), *slow):
        if text:
            yield str(text)
    for process in status.get("processes", ()):
        yield from (str(process[key]) for key in ("stuck", "why") if process.get(key))
