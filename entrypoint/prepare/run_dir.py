"""GLM47_RUN_DIR: ours alone, and of one runner at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from pathlib import Path

from entrypoint.errors import CannotWriteError, ConfigError
from entrypoint.plan.types import Plan
from entrypoint.prepare import leftovers

LOCK = "runner.lock"


def make(path: str) -> None:
    """Make GLM47_RUN_DIR if need be, private to us.

    CannotWriteError (73) when it cannot be written, ConfigError (78) when it, the link that leads to it, or
    something in it is another user's: what we write there could go elsewhere.
    """
    directory = Path(path)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stranger := _stranger(directory):
            raise ConfigError(
                f"cannot use GLM47_RUN_DIR: {path}: {stranger}: set GLM47_RUN_DIR to a directory of uid "
                f"{os.getuid()}"
            )
        probe = directory / f".write-test-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise CannotWriteError(
            f"cannot write GLM47_RUN_DIR: {path}: {error.strerror}: mount a writable volume or tmpfs there, "
            f"or set GLM47_RUN_DIR to a directory that uid {os.getuid()} may write"
        ) from None


def make_for(plan: Plan) -> None:
    """Make the plan's run directory, and first the one that it lies in where runners share a node."""
    if plan.job is not None and plan.job.shared_dir is not None:
        make(plan.job.shared_dir)
    make(plan.run_dir)


def _stranger(directory: Path) -> str | None:
    """What of the directory belongs to a user who is neither we nor root, if anything does.

    A directory of root's that all may write, as an emptyDir is, is as good as ours while nobody else has put
    anything into it.
    """
    if directory.is_symlink() and not _ours(directory):
        return f"the link is of uid {directory.lstat().st_uid}"
    if directory.stat().st_uid not in (os.getuid(), 0):
        return f"it is of uid {directory.stat().st_uid}"
    for entry in directory.iterdir():
        if not _ours(entry):
            return f"{entry.name} in it is of uid {entry.lstat().st_uid}"
    return None


def _ours(path: Path) -> bool:
    try:
        return path.lstat().st_uid in (os.getuid(), 0)
    except FileNotFoundError:  # another runner of ours took it away in between
        return True


def lock(path: str, owner: int, identity: str = "") -> tuple[int, str]:
    """Keep a second runner out of GLM47_RUN_DIR for as long as the returned descriptor is open anywhere.

    With it comes the identity of the runner before, where that one was killed (`unlock`); else "". `owner`:
    the process to name to the second one; `identity`: of this runner. ConfigError (78) when there is one,
    CannotWriteError (73) when the lock cannot be made.
    """
    try:
        descriptor = os.open(
            Path(path) / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600
        )
    except OSError as error:
        raise CannotWriteError(
            f"cannot write GLM47_RUN_DIR: {path}/{LOCK}: {error.strerror}: remove it, or give each runner a "
            f"directory that uid {os.getuid()} may write"
        ) from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise CannotWriteError(
                f"cannot write GLM47_RUN_DIR: {path}/{LOCK}: it is no file: remove it, or give each runner a "
                "directory of its own"
            )
        _take(descriptor)
        before = os.pread(descriptor, 128, 0).decode(errors="replace").split("\n")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{owner}\n{identity}\n".encode(), 0)
    except BlockingIOError:
        holder = _holder(descriptor) or "unknown"
        os.close(descriptor)
        raise ConfigError(
            f"cannot use GLM47_RUN_DIR: {path}: another runner (pid {holder}) uses it: stop that one, or "
            "give each its own directory"
        ) from None
    except OSError as error:
        os.close(descriptor)
        raise CannotWriteError(
            f"cannot lock GLM47_RUN_DIR: {path}/{LOCK}: {error.strerror}: use a local directory or tmpfs"
        ) from None
    return descriptor, before[1] if len(before) > 1 else ""


def _take(descriptor: int) -> None:
    """Lock it; where only copies of a dead runner have it, end them. BlockingIOError: a living one has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _holder(descriptor)
        if not holder.isdigit() or not leftovers.end_copies(descriptor, int(holder)):
            raise
        deadline = time.monotonic() + leftovers.PATIENCE
        while True:
            with contextlib.suppress(BlockingIOError):
                return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.02)


def _holder(descriptor: int) -> str:
    """The pid of the runner that had the lock last, as it wrote it."""
    return os.pread(descriptor, 32, 0).decode(errors="replace").partition("\n")[0]


def unlock(descriptor: int) -> None:
    """Give the run directory back; nothing of this run is left."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
    os.close(descriptor)
