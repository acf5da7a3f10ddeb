"""The containers of one deployment on this machine: a runner each, over etcd, and what can happen to them."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from entrypoint.supervise import process_tree
from tests.support.runner import ROOT, Runner, free_port

READY = 420.0
"""Seconds that an engine with nothing in its caches may take."""


class Deployment:
    """The containers of one deployment."""

    def __init__(self, out: Path, gpus: list[str], **settings: str) -> None:
        self.out, self.gpus = out, gpus
        self.http, etcd, peer, bootstrap, dist = (free_port() for _ in range(5))
        self.common = {
            # An engine may need packages of its own on the path (a CPU engine's stand-ins).
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
            "GLM47_HEAD_ADDRESS": "127.0.0.1",
            "GLM47_HTTP_PORT": str(self.http),
            "GLM47_ETCD_PORT": str(etcd),
            "GLM47_ETCD_PEER_PORT": str(peer),
            "GLM47_BOOTSTRAP_PORT": str(bootstrap),
            "GLM47_DIST_INIT_PORT": str(dist),
            "GLM47_GPUS_PER_NODE": "1",
            **settings,
        }
        self.runners: dict[str, Runner] = {}
        self.started: dict[str, float] = {}
        self.logs: list[tuple[Runner, Path]] = []
        self._lives: dict[str, int] = {}

    def start(
        self,
        name: str,
        role: str,
        gpu: int | None = None,
        host: str = "127.0.0.1",
        before: Sequence[str] = (),
        **settings: str,
    ) -> None:
        """Start a container; a second one of the same name takes the first one's place.

        `host`: the address at which its health endpoint is asked. `before`: words before its command line,
        which have it run elsewhere.
        """
        self._lives[name] = life = self._lives.get(name, 0) + 1
        port = int(settings.get("GLM47_HEALTH_PORT", 0)) or free_port()
        own = {
            "ROLE": role,
            "GLM47_HEALTH_PORT": str(port),
            "GLM47_SYSTEM_PORT": str(free_port()),
            "GLM47_RUN_DIR": tempfile.mkdtemp(prefix=f"bench-{name}-"),
        }
        if gpu is not None and self.gpus:
            own["CUDA_VISIBLE_DEVICES"] = self.gpus[gpu]
        command = [*before, sys.executable, "-m", "entrypoint", "run"]
        runner = Runner(command, {**self.common, **own, **settings}, port, host)
        self.logs.append((runner, self.out / f"{self.http}-{name}-{life}.log"))
        self.runners[name], self.started[name] = runner, time.monotonic()

    def ready(self, *names: str) -> dict[str, float]:
        """Wait until they are; seconds from each one's start."""
        took = {}
        for name in names:
            wait(lambda name=name: self.is_ready(name) or self.ended(name), READY, f"{name} is ready")
            if self.ended(name):
                raise RuntimeError(f"{name} ended: {last_line(self.runners[name])}")
            took[name] = round(time.monotonic() - self.started[name], 1)
        return took

    def is_ready(self, name: str) -> bool:
        """Whether its /readyz is 200."""
        return self.runners[name].get("/readyz")[0] == 200

    def ended(self, name: str) -> bool:
        """Whether its runner is gone."""
        return self.runners[name].process.poll() is not None

    def stop(self) -> dict[str, int]:
        """SIGTERM to everything that uses etcd, then to etcd; the codes."""
        servers = {name: runner for name, runner in self.runners.items() if name == "etcd"}
        rest = {name: runner for name, runner in self.runners.items() if name != "etcd"}
        for some in (rest, servers):
            for runner in some.values():
                if runner.process.poll() is None:
                    runner.signal(signal.SIGTERM)
            for runner in some.values():
                runner.wait(120)
        return {name: runner.wait(0) for name, runner in self.runners.items()}

    def close(self) -> None:
        """Leave nothing behind, and keep the logs."""
        for runner, log in self.logs:
            if runner.process.poll() is None:
                kill_container(runner)
                runner.wait(30)
            log.write_text(runner.text() + "\n")


@contextmanager
def deployment(out: Path, gpus: list[str], **settings: str) -> Iterator[Deployment]:
    """A deployment that is gone at the end."""
    made = Deployment(out, gpus, **settings)
    try:
        yield made
    finally:
        made.close()


def wait(condition: Any, limit: float, what: str) -> float:
    """Seconds until `condition` was true; TimeoutError after `limit`."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > limit:
            raise TimeoutError(f"not within {limit:g} s: {what}")
        time.sleep(0.05)
    return round(time.monotonic() - began, 1)


def last_line(runner: Runner) -> str:
    """What an engineer reads first."""
    return next((line for line in reversed(runner.lines) if line.startswith("runner")), "")


def processes(runner: Runner) -> list[int]:
    """The pids of a container: its runner and all below it."""
    below = [runner.process.pid]
    for pid in below:
        below += process_tree.children(pid)
    return below


def scheduler(runner: Runner) -> int:
    """The pid of a container's first scheduler."""
    return next(pid for pid in processes(runner) if process_tree.title(pid).startswith("sglang::scheduler"))


def kill_container(runner: Runner) -> None:
    """What the end of a container's PID 1 does to it: KILL to every process at once."""
    for pid in processes(runner):
        process_tree.signal_process(pid, signal.SIGKILL)
