"""A runner as a child process of a test: its output, its health endpoint, its end."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from entrypoint.plan.types import Plan

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 20.0
"""Seconds that anything a test waits for may take; passing tests take a fraction of it."""


def free_port() -> int:
    """A TCP port that nothing listened on a moment ago, below the ephemeral range's usual start."""
    import random

    while True:
        port = random.randint(15000, 31000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def until(condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    """Poll `condition` until it is true, and return it; fail after `deadline` seconds."""
    began = time.monotonic()
    while not (value := condition()):
        waited = time.monotonic() - began
        assert waited < deadline, f"not within {deadline:g} s: {what}"
        # Looks every 10 ms would take what is waited for, an engine's start, a part of its processor.
        time.sleep(min(0.1, max(0.01, waited / 50)))
    return value


def alive(pid: int) -> bool:
    """Whether `pid` runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


class Runner:
    """One runner process. Use as a context manager: it is killed at the end if it still runs."""

    def __init__(
        self,
        command: list[str],
        env: dict[str, str] | None = None,
        health_port: int = 0,
        host: str = "127.0.0.1",
        read: bool = True,
        cwd: Path | str = ROOT,
        **popen: Any,
    ) -> None:
        self.health_port, self.host = health_port, host
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
            cwd=cwd,
            start_new_session=True,
            **popen,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        if read:
            self._reader.start()

    @classmethod
    def of_plan(cls, plan: Plan, tmp_path: Path, **options: Any) -> Runner:
        """A runner of a plan made by hand."""
        import dataclasses

        port = plan.health.number or free_port()
        ports = tuple(dataclasses.replace(p, number=port) if p.name == "health" else p for p in plan.ports)
        plan = dataclasses.replace(plan, run_dir=str(tmp_path / "run"), ports=ports)
        file = tmp_path / "plan.pickle"
        file.write_bytes(pickle.dumps(plan))
        command = [sys.executable, "-m", "tests.support.run_plan", str(file)]
        return cls(command, health_port=port, **options)

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.decode(errors="replace").rstrip("\n"))

    def wait_for(self, words: str, deadline: float = DEADLINE) -> str:
        """The first line that has `words`; a run of spaces, as after a name, counts as one."""
        return self.wait_for_match(" +".join(map(re.escape, words.split(" "))), deadline)

    def wait_for_match(self, pattern: str, deadline: float = DEADLINE) -> str:
        """The first line that matches the regular expression `pattern`."""
        compiled = re.compile(pattern)

        def find() -> str | None:
            found = next((line for line in list(self.lines) if compiled.search(line)), None)
            assert found or self.process.poll() is None or self._reader.is_alive(), self.text()
            return found

        try:
            return str(until(find, f"a line like {pattern!r}", deadline))
        except AssertionError:
            print(self.text())
            raise

    def text(self) -> str:
        return "\n".join(self.lines)

    def wait(self, deadline: float = DEADLINE) -> int:
        """The exit code (negative for a signal), once the runner has ended and its output is read."""
        code = self.process.wait(deadline)
        if self._reader.ident is not None:
            self._reader.join(deadline)
        return code

    def signal(self, signum: int) -> None:
        self.process.send_signal(signum)

    def get(self, path: str) -> tuple[int, Any]:
        """GET a page of the health endpoint: code and JSON body (or text)."""
        url = f"http://{self.host}:{self.health_port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                code, body = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            code, body = error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)
        return code, json.loads(body) if body.startswith("{") else body

    def status_of(self, name: str) -> dict[str, Any]:
        """The status entry of process `name`."""
        _, body = self.get("/status")
        return next(p for p in body["processes"] if p["name"] == name)
