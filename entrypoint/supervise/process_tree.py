"""Process groups, descendants and orphans on Linux.

Every supervised process leads a session and group of its own and carries ``GLM47_PROCESS=<name>`` in
its environment. We are a child subreaper (or PID 1), so what a process leaves behind becomes our
child, also when it has changed its session: the group or that variable tells whose it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

MARK = "GLM47_PROCESS"
"""Variable that names the supervised process a process belongs to."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


@dataclass(frozen=True)
class Stat:
    """What /proc/PID/stat says of a process (proc_pid_stat(5))."""

    pid: int
    comm: str
    """Its name, also once it is dead: the first 15 bytes of what setproctitle or PR_SET_NAME gave it."""
    state: str
    """One letter."""
    dead: bool
    """It has ended; nobody has reaped it yet."""
    parent: int
    started: int
    """Clock ticks since boot; tells apart two processes that had the same pid."""
    status: int
    """The wait status of a dead process of our own user; 0 for others, and in some emulators."""
    ticks: int = 0
    """Clock ticks of processor time so far."""
    children_ticks: int = 0
    """And those of its children that have ended and were waited for."""


def read_stat(pid: int) -> Stat | None:
    """What is known of process `pid`; None when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes().decode(errors="replace")
    except OSError:
        return None
    head, _, tail = text.rpartition(")")  # the name may hold anything, brackets too
    fields = tail.split()
    return Stat(
        pid=pid,
        comm=head.partition("(")[2],
        state=fields[0],
        dead=fields[0] in "ZXx",
        parent=int(fields[1]),
        started=int(fields[19]),
        status=int(fields[49]) if len(fields) > 49 else 0,
        ticks=int(fields[11]) + int(fields[12]),
        children_ticks=int(fields[13]) + int(fields[14]),
    )


def title(pid: int) -> str:
    """The command line's first word, which is all of it once setproctitle was used; "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0].decode(errors="replace")
    except OSError:
        return ""


def become_subreaper() -> None:
    """Let orphaned descendants become our children, as PID 1's do by themselves.

    Raises OSError where that cannot be had: an emulator of another architecture knows nothing of the call.
    """
    if os.getpid() == 1:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, *map(ctypes.c_ulong, (1, 0, 0, 0))) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"prctl(PR_SET_CHILD_SUBREAPER): {os.strerror(errno)}")


def dies_with(parent: int) -> Callable[[], None]:
    """What a new process does between fork and exec: it has the kernel kill it once process `parent` is gone.

    Without it an engine outlives a runner that was killed, keeps its GPU memory and its ports, and answers
    the next runner's probes. The kernel looks at the thread that forked: it must be one that lives as long as
    the process. Where the call is not known (an emulator), the process starts all the same.
    """
    libc = ctypes.CDLL(None)

    def before_exec() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, *map(ctypes.c_ulong, (signal.SIGKILL, 0, 0, 0)))
        if os.getppid() != parent:  # gone in between: nothing will tell
            os._exit(128 + signal.SIGKILL)

    return before_exec


def children(pid: int | None = None) -> list[int]:
    """Living and zombie children of process `pid` (default: ours)."""
    found: list[int] = []
    known = False
    gone = FileNotFoundError, ProcessLookupError, PermissionError
    with contextlib.suppress(*gone):
        for task in Path(f"/proc/{pid or os.getpid()}/task").iterdir():
            # A thread may end while we look.
            with contextlib.suppress(*gone):
                found += map(int, (task / "children").read_text().split())
                known = True
    # Else the process has gone, or the kernel lacks CONFIG_PROC_CHILDREN.
    return found if known else _children_by_scan(pid or os.getpid())


def _children_by_scan(parent: int) -> list[int]:
    stats = (read_stat(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [stat.pid for stat in stats if stat is not None and stat.parent == parent]


def group_alive(pgid: int) -> bool:
    """Whether the process group `pgid` has a member (a zombie counts until it is reaped)."""
    try:
        os.killpg(pgid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def orphans(known: Iterable[int]) -> dict[int, str | None]:
    """Our children that are no supervised process themselves: pid to the owner's name, if it tells."""
    main = set(known)
    return {pid: _mark(pid) for pid in children() if pid not in main}


def _mark(pid: int) -> str | None:
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    prefix = MARK.encode() + b"="
    for item in environ.split(b"\0"):
        if item.startswith(prefix):
            return item[len(prefix) :].decode(errors="replace")
    return None


def signal_group(pgid: int, signum: signal.Signals) -> None:
    """Signal every member of group `pgid`; a group that is gone is no error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pgid, signum)


def signal_process(pid: int, signum: signal.Signals) -> None:
    """Signal one process; one that is gone is no error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signum)
