"""What a runner that was killed has left running, told by its identity in their environment, never by name.

A child of the runner ends with it; what that child had started does not always. It would keep GPU memory and
ports that the next start needs. Nor does a copy of the runner that was stopped (SIGSTOP) before it became a
child: it has no identity yet, but the lock of the run directory is open in it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

RUNNER = "GLM47_RUNNER"
"""Variable that all processes of one run have: which runner they belong to."""
PATIENCE = 5.0
"""Seconds for killed processes to go: the kernel gives memory back first."""


def identity() -> str:
    """A new one: no two runs have the same."""
    return f"{os.getpid()}-{os.urandom(8).hex()}"


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


def end_copies(lock: int, owner: int) -> bool:
    """KILL the copies of a dead runner that keep its lock: True when there were any, and nobody else has it.

    `lock`: a descriptor of the lock's file; `owner`: the dead runner's pid, as it knew it. A copy of a living
    one is its child.
    """
    file = os.fstat(lock)
    holders = {int(p.name) for p in Path("/proc").glob("[0-9]*") if _has_open(p, file)} - {os.getpid()}
    copies = {pid for pid in holders if owner not in (_own_pid(pid), _own_pid(_parent(pid)))}
    if not copies or copies != holders:
        return False
    for pid in copies:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return True


def _has_open(process: Path, file: os.stat_result) -> bool:
    with contextlib.suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                if os.path.samestat(descriptor.stat(), file):
                    return True
    return False


def _own_pid(pid: int) -> int:
    """The pid that process `pid` has in its own namespace; 0: it has gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return 0


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def _us() -> set[int]:
    """This process and those above it: a start from within an old run's shell is nobody's leftover."""
    above = {os.getpid()}
    pid = os.getppid()
    while pid > 1:
        above.add(pid)
        pid = _parent(pid)
    return above
