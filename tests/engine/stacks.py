"""Runners that start the CPU engine, and what the tests ask of them."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from entrypoint.plan.roles.worker import GENERATE, IN_FLIGHT
from entrypoint.supervise import process_tree
from entrypoint.supervise.probes.asking import samples
from tests.support import cpu_engine
from tests.support.cpu_engine import PINNED
from tests.support.node import Node
from tests.support.runner import Runner, until
from tests.support.stack import COMMAND, free_ports

START = 240.0
"""Seconds that a start may take: 15 on two free cores, over 100 on busy ones."""


class Stack:
    """One container's runner on free ports. Use as a context manager."""

    def __init__(
        self,
        directory: Path,
        model: Path,
        role: str,
        *,
        release: str = PINNED,
        gpus: int = 1,
        spins: bool = False,
        node: Node | None = None,
        through: tuple[str, ...] = (),
        **settings: str,
    ) -> None:
        """`node`: where it runs, if not here; `through`: a command that starts it. `spins`: cpu_engine's.

        `settings` win over the CPU engine's and over the free ports.
        """
        host = "127.0.0.1" if node is None else node.address
        given = {
            "GLM47_RUN_DIR": str(directory),
            "GLM47_TERMINATION_LOG": f"{directory}.reason",
            "ROLE": role,
            **cpu_engine.settings(model, release=release, gpus=gpus, spins=spins),
            **free_ports(),
            **settings,
        }
        self.ports = {name: value for name, value in given.items() if name.endswith("_PORT")}
        self.url = f"http://{host}:{given['GLM47_HTTP_PORT']}"
        command = [*through, COMMAND, "run"] if node is None else node.command(COMMAND, "run")
        port = int(given["GLM47_HEALTH_PORT"])
        self.runner = Runner(command, env=given, health_port=port, host=host)

    def __enter__(self) -> Stack:
        self.runner.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.runner.__exit__(*exc)

    def ready(self) -> Stack:
        """Itself, once the runner is ready; a runner that ends instead is a failure with its output."""
        runner = self.runner
        try:
            until(
                lambda: runner.get("/readyz")[0] == 200 or runner.process.poll() is not None, "ready", START
            )
            assert runner.process.poll() is None
        except AssertionError:
            print(runner.text())
            raise
        return self

    def pids(self, title: str) -> list[int]:
        """Processes below the runner whose title begins with `title`, such as sglang::scheduler."""
        return [pid for pid, name in titles(self.runner.process.pid).items() if name.startswith(title)]


@contextmanager
def asking(stack: Stack, tokens: int = 3000, metrics_of: Stack | None = None) -> Iterator[dict[str, Any]]:
    """One long request in flight; what became of it. `metrics_of`: where the worker is, if elsewhere."""
    ended: dict[str, Any] = {}

    def request() -> None:
        try:
            ended["answer"] = cpu_engine.greedy(stack.url, ["abc"], tokens=tokens, timeout=90)
        except Exception as error:
            ended["error"] = error

    thread = threading.Thread(target=request)
    thread.start()
    page = f"http://127.0.0.1:{(metrics_of or stack).ports['GLM47_SYSTEM_PORT']}/metrics"
    until(lambda: flying(page) >= 1, "a request is in flight")
    yield ended
    thread.join(100)
    assert ended, "the request goes on after its worker has ended"


def flying(page: str) -> float:
    """Requests that a worker has and has not answered, by its metrics."""
    with urllib.request.urlopen(page, timeout=5) as answer:
        return samples(answer.read().decode(), (IN_FLIGHT,), GENERATE)[0] or 0.0


def titles(root: int) -> dict[int, str]:
    """The title of every process below `root`, by its id."""
    found = {}
    for pid in process_tree.children(root):
        found[pid] = process_tree.title(pid)
        found |= titles(pid)
    return found
