"""One container's life as its supervisor sees it: small children that report, and nothing left behind.

The children are /bin/sh scripts, the same for every system. Each reports through a named pipe when it is
executed, and when a signal reaches it; a report's time is when it is read here, with the monotonic clock.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from entrypoint.supervise import process_tree

SLEEP = "exec sleep 1000"
REPORT_TERM = """trap 'echo "term $me $$" >"$BENCH_EVENTS"; exit 0' TERM
sleep 1000 &
wait"""
FLOOD = "exec yes 'a line of a process that writes faster than anybody reads'"

_SCRIPT = """#!/bin/sh
me={name}
echo "exec $me $$" >"$BENCH_EVENTS"
{notify}
{serve}
{behaviour}
"""
# Only a supervisor with a readiness protocol of its own gives BENCH_NOTIFY: the descriptor to tell it on.
_NOTIFY = """if [ -n "$BENCH_NOTIFY" ]; then read -r go <"$BENCH_GO"; echo >&3; exec 3>&-; fi"""


_STANDIN = Path(__file__).parent / "standins.py"


def write_script(path: Path, name: str, behaviour: str, *, notifies: bool = False, serve: str = "") -> Path:
    """An executable child called `name` that reports and then does `behaviour` (shell text).

    `serve`: arguments of standins.py for a server beside it, and where its standard input comes from.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    notify = _NOTIFY if notifies else ""
    server = f"{sys.executable} -I -S {_STANDIN} {serve} >/dev/null 2>&1 &" if serve else ""
    path.write_text(_SCRIPT.format(name=name, notify=notify, serve=server, behaviour=behaviour))
    path.chmod(0o755)
    return path


@dataclass(frozen=True)
class Report:
    """What a child told."""

    event: str
    name: str
    pid: int
    at: float
    """Monotonic seconds."""


class Events:
    """The named pipe that the children report through, and the one that `ready` is given through."""

    def __init__(self, folder: Path) -> None:
        self.path, self.go_path = folder / "events", folder / "go"
        os.mkfifo(self.path)
        os.mkfifo(self.go_path)
        # Read and write: never at its end, however many writers have come and gone.
        self._fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._go = os.open(self.go_path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._rest = b""
        self._seen: list[Report] = []

    def wait(self, event: str, name: str | None = None, timeout: float = 15.0) -> Report | None:
        """The first report of `event` (by child `name`, or by any); None after `timeout` seconds."""
        end = time.monotonic() + timeout
        while True:
            for report in self._seen:
                if report.event == event and name in (None, report.name):
                    return report
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._fd], [], [], left)[0]:
                return None
            now = time.monotonic()
            *lines, self._rest = (self._rest + os.read(self._fd, 65536)).split(b"\n")
            for line in lines:
                kind, who, pid = line.decode().split()
                self._seen.append(Report(kind, who, int(pid), now))

    @property
    def pids(self) -> set[int]:
        """Every child that has reported."""
        return {report.pid for report in self._seen}

    def go(self) -> float:
        """Let etcd say that it is ready, or open its port; returns when that was (monotonic seconds)."""
        now = time.monotonic()
        os.write(self._go, b"go\n")
        return now

    def close(self) -> None:
        os.close(self._fd)
        os.close(self._go)


def start(
    argv: list[str], env: Mapping[str, str], cwd: Path, stdout: int
) -> tuple[float, subprocess.Popen[bytes]]:
    """Start a container's first process: when that was (monotonic seconds), and the process."""
    at = time.monotonic()
    process = subprocess.Popen(
        argv,
        env=dict(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    return at, process


def descendants(pid: int) -> list[int]:
    """Every process below `pid`."""
    found: list[int] = []
    for child in process_tree.children(pid):
        found += [child, *descendants(child)]
    return found


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill `process` and whatever it started. The caller must be a child subreaper."""
    if process.poll() is None:
        process.kill()
        process.wait()
    # What it leaves behind becomes our child, generation by generation.
    while left := process_tree.children():
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in left:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def memory(pids: list[int]) -> tuple[float, float]:
    """(RSS, PSS) of `pids` together, in MB of 1,000,000 bytes. PSS counts a shared page only once."""
    totals = {"Rss": 0, "Pss": 0}
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                key, _, value = line.partition(":")
                if key in totals:
                    totals[key] += int(value.split()[0]) * 1024
    return totals["Rss"] / 1e6, totals["Pss"] / 1e6
