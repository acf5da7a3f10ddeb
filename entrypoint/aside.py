"""Run a function in a forked child and take its result back.

Planning needs pydantic and much else that a supervisor which runs for weeks does not: done aside, its
memory is gone once the plan is there, and the supervisor's own modules load at the same time.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def aside(function: Callable[[], T], meanwhile: Callable[[], object]) -> T:
    """`function()`, computed in a child while `meanwhile()` runs here. Call it before there are threads.

    The child is left to whoever reaps: the kernel takes milliseconds to end it, and nothing waits for that.
    Raises what `function` raised, and RuntimeError when the child died. The result must be picklable.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        _child(function, write)
    os.close(write)
    try:
        meanwhile()
        with os.fdopen(read, "rb") as pipe:
            data = pipe.read()
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    if not data:
        _, status = os.waitpid(pid, 0)
        raise RuntimeError(f"planning ended with {os.waitstatus_to_exitcode(status)}")
    result, error = pickle.loads(data)
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


def _child(function: Callable[[], T], write: int) -> None:
    outcome: tuple[T | None, BaseException | None]
    try:
        outcome = (function(), None)
    except BaseException as error:
        outcome = (None, error)
    try:
        data = pickle.dumps(outcome)
    except Exception as error:
        data = pickle.dumps((None, RuntimeError(f"planning gave what cannot be passed on: {error!r}")))
    sys.stdout.flush()
    sys.stderr.flush()
    with os.fdopen(write, "wb") as pipe:
        pipe.write(data)
    os._exit(0)
