"""Which signals the supervisor catches, and which are left as they are."""

from __future__ import annotations

import signal
from collections.abc import Callable

STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
FAULTS = {
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGABRT,
    signal.SIGSYS,
    signal.SIGTRAP,
}
JOB_CONTROL = {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT, signal.SIGSTOP, signal.SIGKILL}
KEPT = {*FAULTS, *JOB_CONTROL, signal.SIGCHLD, signal.SIGUSR1, signal.SIGURG, signal.SIGWINCH}
"""Signals whose default is right, or that have a handler of their own."""


def catch(wake_fd: int, received: Callable[[int], None]) -> None:
    """Give every signal to stop, SIGCHLD and SIGUSR1 to `received`; each writes a byte to `wake_fd`."""
    signal.set_wakeup_fd(wake_fd, warn_on_full_buffer=False)
    for signum in (*STOP, signal.SIGCHLD, signal.SIGUSR1):
        signal.signal(signum, lambda received_one, frame: received(received_one))
    # By default these would end us and leave the processes behind. They are not blocked or ignored
    # but caught, since children would inherit that across exec.
    for signum in set(signal.valid_signals()) - set(STOP) - KEPT:
        signal.signal(signum, lambda received_one, frame: None)


def let_go() -> None:
    """Write to the descriptor no more: it is about to be closed."""
    signal.set_wakeup_fd(-1)
