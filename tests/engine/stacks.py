"""Runners that start the CPU engine, and what the tests ask of them."""

from __future__ import annotations

from pathlib import Path

from entrypoint.supervise import tree
from tests.support import cpu_engine
from tests.support.cpu_engine import PINNED
from tests.support.runner import until
from tests.support.stack import free_ports, run

START = 240.0
"""Seconds that a start may take: 15 on two free cores, over 100 on busy ones."""


class Stack:
    """One container's runner on free ports. Use as a context manager."""

    def __init__(
        self, directory: Path, model: Path, role: str, *, release: str = PINNED, **settings: str
    ) -> None:
        """`settings` win over the CPU engine's and over the free ports."""
        ports = self.ports = free_ports() | {k: v for k, v in settings.items() if k.endswith("_PORT")}
        self.url = f"http://127.0.0.1:{ports['GLM47_HTTP_PORT']}"
        given = cpu_engine.settings(model, release=release, more=ports | settings | {"ROLE": role})
        self.runner = run(directory, ("run",), **given)

    def __enter__(self) -> Stack:
        self.runner.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.runner.__exit__(*exc)

    def ready(self) -> Stack:
        """Itself, once the runner is ready; a runner that ends instead is a failure with its output."""
        runner = self.runner
        until(lambda: runner.get("/readyz")[0] == 200 or runner.process.poll() is not None, "ready", START)
        assert runner.process.poll() is None, runner.text()
        return self

    def pids(self, title: str) -> list[int]:
        """Processes below the runner whose title begins with `title`, such as sglang::scheduler."""
        return [pid for pid, name in titles(self.runner.process.pid).items() if name.startswith(title)]


def titles(root: int) -> dict[int, str]:
    """The title of every process below `root`, by its id."""
    found = {}
    for pid in tree.children(root):
        found[pid] = tree.title(pid)
        found |= titles(pid)
    return found
