"""What a runner that was killed has left running, told by its identity in their environment, never by name.

A child of the runner ends with it; what that child had started does not always. It would keep GPU memory and
ports that the next start needs.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import time
from pathlib import Path

RUNNER = "GLM47_RUNNER"
"""Variable that all processes of one run have: which runner they belong to."""
PATIENCE = 5.0
"""Seconds for killed processes to go: the kernel gives memory back first."""


def identity() -> str:
    """A new one: no two runs have the same."""
    return f"{os.getpid()}-{secrets.token_hex(8)}"


def end(runner: str) -> list[str]:
    """KILL what the dead runner of that identity left: what it was, as ``command (pid)``.

    Which processes we may not look into are not ours, and stay. So does what still lives after PATIENCE
    seconds: the ports that it holds are refused by name.
    """
    ended: dict[int, str] = {}
    spared = _us()
    deadline = time.monotonic() + PATIENCE
    while (found := {pid: name for pid, name in _of(runner).items() if pid not in spared}) and (
        time.monotonic() < deadline
    ):
        ended |= found
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    return [f"{name} (pid {pid})" for pid, name in ended.items()]


def _of(runner: str) -> dict[int, str]:
    """Living processes of that runner, with their commands."""
    wanted = f"{RUNNER}={runner}".encode()
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # Empty of a process that has ended and is not reaped.
            if wanted in (process / "environ").read_bytes().split(b"\0"):
                found[int(process.name)] = (process / "comm").read_text().strip()
    return found


def _us() -> set[int]:
    """This process and those above it: a start from within an old run's shell is nobody's leftover."""
    above = {os.getpid()}
    pid = os.getppid()
    while pid > 1:
        above.add(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
    return above
