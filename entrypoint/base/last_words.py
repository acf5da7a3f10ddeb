"""The reason of an end, told where there may be nobody to tell it to.

Nothing here raises or waits for long: a closed or full standard error, a reader that does not read, or a
termination log that cannot be written changes no exit code.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select

PATIENCE = 2.0
"""Seconds that a reader of our standard error may keep us."""
PIECE = 4096
"""Bytes that a pipe takes at once when it says that it can be written (pipe(7), PIPE_BUF)."""
FIRST_OWN = 3
"""The first descriptor that is not standard input, output or error."""


def say(text: str, stamp: str = "") -> None:
    """Each line of `text` on standard error, after our name and, if given, the time."""
    before = f"{stamp} " if stamp else ""
    lines = "".join(f"{before}glm47-runner: {line}\n" for line in text.splitlines())
    left = memoryview(lines.encode("utf-8", "replace"))
    with contextlib.suppress(OSError):
        poll = select.poll()
        poll.register(2, select.POLLOUT)
        while left and poll.poll(PATIENCE * 1000):
            left = left[os.write(2, left[:PIECE]) :]


def write_termination_log(path: str | None, reason: str) -> None:
    """Leave the reason where Kubernetes looks for it. In /dev only if the file is there already."""
    if not path:
        return
    try:
        _write(path, reason)
    except OSError as error:
        if error.errno != errno.EMFILE:
            return
        # What comes after this is our exit: nothing that is open is needed any more.
        os.closerange(FIRST_OWN, os.sysconf("SC_OPEN_MAX"))
        with contextlib.suppress(OSError):
            _write(path, reason)


def _write(path: str, reason: str) -> None:
    create = 0 if path.startswith("/dev/") else os.O_CREAT
    # A FIFO without a reader would keep us here for ever.
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK | os.O_NOCTTY | create, 0o644)
    try:
        os.write(fd, (reason + "\n").encode("utf-8", "replace"))
    finally:
        os.close(fd)
