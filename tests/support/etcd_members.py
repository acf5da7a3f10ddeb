"""An etcd of several members, each in a runner of its own, on a loopback address of its own."""

from __future__ import annotations

import shutil
import signal
from contextlib import ExitStack
from pathlib import Path

from tests.support.runner import Runner, free_port, until
from tests.support.stack import ENGINE, run

START = 60.0
"""Seconds that members may take to agree on a leader, on two processors with others' work."""


class Members:
    """Up to seven members; all have the same ports."""

    def __init__(self, base: Path, stack: ExitStack, count: int = 3, **settings: str) -> None:
        self.base, self.stack, self.settings = base, stack, settings
        self.hosts = {name: f"127.0.1.{number}" for number, name in enumerate("abcdefg"[:count], 11)}
        self.ports = {f"GLM47_ETCD{which}PORT": str(free_port()) for which in ("_", "_PEER_")}
        self.runners: dict[str, Runner] = {}

    @property
    def listed(self) -> str:
        """GLM47_ETCD_MEMBERS."""
        return ",".join(f"{name}={host}" for name, host in self.hosts.items())

    @property
    def urls(self) -> str:
        """ETCD_ENDPOINTS."""
        scheme = "https" if "GLM47_ETCD_TLS_DIR" in self.settings else "http"
        return ",".join(f"{scheme}://{host}:{self.ports['GLM47_ETCD_PORT']}" for host in self.hosts.values())

    def data(self, name: str) -> Path:
        return self.base / name / "etcd"

    def start(self, *names: str, **settings: str) -> None:
        """Members, all of them unless some are named, beside what runs."""
        for name in names or self.hosts:
            more = {**self.ports, **self.settings, **settings, "GLM47_HEALTH_PORT": str(free_port())}
            more |= {"ROLE": "etcd", "GLM47_ETCD_MEMBERS": self.listed, "GLM47_ETCD_MEMBER": name}
            more |= {"GLM47_PYTHON": str(ENGINE / "python"), "GLM47_STOP_TIMEOUT": "10"}
            self.runners[name] = self.stack.enter_context(run(self.base / name, **more))

    def ready(self, name: str) -> bool:
        runner = self.runners[name]
        assert runner.process.poll() is None, runner.text()
        return bool(runner.get("/readyz")[0] == 200)

    def until_ready(self, *names: str) -> None:
        for name in names or self.runners:
            until(lambda name=name: self.ready(name), f"{name} is ready", START)  # type: ignore[misc]

    def kill(self, *names: str) -> None:
        """As a machine that is gone: runner and etcd at once."""
        for name in names:
            runner = self.runners.pop(name)
            etcd = runner.status_of("etcd")["pid"]
            runner.process.kill()
            runner.wait()
            until(lambda etcd=etcd: not Path(f"/proc/{etcd}").exists(), "its etcd is gone")  # type: ignore[misc]

    def stop(self, *names: str) -> None:
        for name in names:
            runner = self.runners.pop(name)
            runner.signal(signal.SIGTERM)
            assert runner.wait() == 0, runner.text()

    def lose(self, *names: str) -> None:
        """Their data."""
        for name in names:
            shutil.rmtree(self.data(name))
