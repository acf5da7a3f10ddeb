"""Make the plan in a forked child and take it back.

Planning needs pydantic and much else that a supervisor which runs for weeks does not: done aside, its
memory is gone once the plan is there, and the supervisor's own modules load at the same time.

The child never speaks for the runner: it writes no reason and sets no exit code, stop signals are the
parent's affair, and it does not outlive its parent.
"""

from __future__ import annotations

import _socket  # `socket` takes a hundred times as long to load
import os
import pickle
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn, TypeVar

from entrypoint.errors import PlannerLostError

T = TypeVar("T")
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
LONGEST = 900.0
"""Seconds that planning may take: a patch of sources on a slow file system waits for others' locks."""
STOPPED = 10.0
"""Seconds that the child may be stopped (SIGSTOP) before the start is given up."""
INT = 4
"""Bytes of a descriptor in a message (unix(7))."""
LOOK = 1.0
"""Seconds between looks at the child's state."""


_planner = 0
"""Pid of the child while it plans; 0: there is none."""


def give_up() -> None:
    """End the child that plans, if there is one. For a signal's handler: one that is stopped would stay."""
    if _planner:
        os.kill(_planner, signal.SIGKILL)


def aside(
    function: Callable[[], tuple[T, int]], meanwhile: Callable[[], object], longest: float = LONGEST
) -> tuple[T, int]:
    """`function()`, computed in a child while `meanwhile()` runs here: a value and a file descriptor.

    Call it before there are threads. The child is left to whoever reaps: the kernel takes milliseconds to end
    it, and nothing waits for that. Raises what `function` raised, and PlannerLostError when the child was
    killed, is stopped, or takes longer than `longest` seconds. The value must be picklable.
    """
    global _planner
    # Before the fork: a child that is stopped (SIGSTOP) while it imports this would outlive a killed runner.
    from entrypoint.supervise.process_tree import dies_with

    ours, theirs = _socket.socketpair()
    end_with_us = dies_with(os.getpid())
    # The child must not even begin with the parent's handlers.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    pid = os.fork()
    if pid == 0:
        _child(function, ours, theirs, end_with_us)
    _planner = pid
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    theirs.close()
    try:
        meanwhile()
        data, descriptors = _receive(ours, pid, longest)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        _planner = 0
        ours.close()
    try:
        value, error = pickle.loads(data)
    except (EOFError, pickle.UnpicklingError):
        raise PlannerLostError(_end_of(pid)) from None
    if error is not None:
        raise error
    return value, descriptors[0]


def _end_of(pid: int) -> str:
    """Why there is no plan, of a child that has ended too early."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"cannot plan: the planner ended: {how}: give the container more memory"


def _receive(ours: _socket.socket, pid: int, longest: float) -> tuple[bytes, list[int]]:
    """All that the child sends, and the descriptors that come with it."""
    data, descriptors = b"", []
    began = time.monotonic()
    runs = began
    while True:
        if not select.select([ours], [], [], LOOK)[0]:
            now = time.monotonic()
            runs = runs if _stopped(pid) else now
            if now - runs >= STOPPED:
                raise PlannerLostError(
                    f"cannot plan: the planner (pid {pid}) is stopped by a signal (SIGSTOP): start again"
                )
            if now - began >= longest:
                raise PlannerLostError(
                    f"cannot plan: no plan after {longest:.0f} s: see whether the model's and the cache's "
                    "file systems answer, and start again"
                )
            continue
        part, ancillary, _, _ = ours.recvmsg(1 << 20, _socket.CMSG_SPACE(INT), _socket.MSG_CMSG_CLOEXEC)
        data += part
        descriptors += [int.from_bytes(sent, sys.byteorder) for _, _, sent in ancillary]
        if not part:
            return data, descriptors


def _stopped(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 (pathlib is not loaded yet)
            return file.read().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


def _child(
    function: Callable[[], tuple[T, int]],
    ours: _socket.socket,
    theirs: _socket.socket,
    end_with_parent: Callable[[], None],
) -> NoReturn:
    try:
        end_with_parent()
        ours.close()
        _leave_stops_to_parent()
        data, descriptors = _outcome(function)
        rights = [
            (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptor.to_bytes(INT, sys.byteorder))
            for descriptor in descriptors
        ]
        sent = theirs.sendmsg([data], rights)
        theirs.sendall(data[sent:])
        theirs.close()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        # Also where the parent has gone, and whatever else happened: what comes after a fork is the parent's.
        os._exit(0)


def _leave_stops_to_parent() -> None:
    for signum in STOPS:
        signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


def _outcome(function: Callable[[], tuple[T, int]]) -> tuple[bytes, list[int]]:
    outcome: tuple[T | None, BaseException | None]
    descriptors: list[int] = []
    try:
        value, descriptor = function()
        outcome, descriptors = (value, None), [descriptor]
    except BaseException as error:
        outcome = (None, error)
    try:
        return pickle.dumps(outcome), descriptors
    except Exception as error:
        lost = RuntimeError(f"planning gave what cannot be passed on: {error!r}")
        return pickle.dumps((None, lost)), []
