"""Replacing a source file where it is: whole or not at all, one writer at a time, mode and owner kept."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from entrypoint.base.files import replacing

LOCK = ".glm47-runner.lock"
LOCK_TIMEOUT = 60.0
"""Seconds to wait for another container that patches the same files."""
_TMP = ".glm47-runner-"


@contextlib.contextmanager
def locked(directory: Path, timeout: float = LOCK_TIMEOUT) -> Iterator[None]:
    """Hold the one lock of everyone who patches files in `directory`.

    OSError when the lock file cannot be written there, TimeoutError when it is held longer than `timeout`
    seconds. The file stays: removing it would let two writers hold two different locks.
    """
    fd = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"another process holds {directory / LOCK}") from None
                time.sleep(0.02)
        yield
    finally:
        os.close(fd)


def replace(path: Path, data: bytes) -> None:
    """Make `data` the content of `path`: readers, also after a crash, see the old file or the new one.

    Call with the lock held. OSError, with the file as it was, when that cannot be done or would change the
    file's owner. A hard link to the file (package managers share files that way) keeps the old content.
    """
    status = path.stat()
    for left_over in path.parent.glob(f"{_TMP}*"):
        left_over.unlink(missing_ok=True)
    with replacing(path, prefix=_TMP) as file:
        file.write(data)
        file.flush()
        new = os.fstat(file.fileno())
        if (new.st_uid, new.st_gid) != (status.st_uid, status.st_gid):
            os.fchown(file.fileno(), status.st_uid, status.st_gid)
        os.fchmod(file.fileno(), status.st_mode & 0o7777)
        os.fsync(file.fileno())
        drop_bytecode(path)
    # Again: someone may have compiled the old text in between, and unchecked bytecode never expires.
    drop_bytecode(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def drop_bytecode(path: Path) -> None:
    """Remove what Python compiled `path` to, for every interpreter and optimisation level."""
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink(missing_ok=True)
