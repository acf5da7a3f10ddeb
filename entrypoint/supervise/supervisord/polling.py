"""One wait of the supervisor's loop.

Whatever the loop must act on (a signal, a child's end, an answer of a probe, a control connection) ends
the wait at once. Output alone does not: it is forwarded here, many reads to one turn of the loop, since a
turn costs more than a read.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from typing import Any

from entrypoint.supervise.supervisord.child import OutputDispatcher

SPAN = 0.05
"""Seconds that output may keep the loop from turning."""
PAUSE = 0.0002
"""Seconds to let output gather before the next read: line by line, a read costs more than its line. Longer,
and a fast writer would fill its pipe and wait for us."""
LITTLE = 16 << 10
"""Bytes: a round of reads that gave less is followed by a pause."""


def wait(poller: Any, handlers: Mapping[int, Any], wake_fd: int, timeout: float) -> None:
    """Wait at most `timeout` seconds for one of `handlers` (by descriptor) or `wake_fd`, and handle it."""
    _register(poller, handlers, wake_fd)
    deadline = time.monotonic() + timeout
    readable, writable = poller.poll(timeout)
    end = min(deadline, time.monotonic() + SPAN)
    while True:
        taken = _output(handlers, readable)
        if taken is None or writable:
            _handle(handlers, wake_fd, readable, writable)
            return
        left = end - time.monotonic()
        if left <= 0 or not readable or any(not handlers[fd].readable() for fd in readable):
            return
        if taken < LITTLE:
            time.sleep(min(PAUSE, left))
        readable, writable = poller.poll(left)


def _register(poller: Any, handlers: Mapping[int, Any], wake_fd: int) -> None:
    poller.register_readable(wake_fd)
    for fd, handler in handlers.items():
        if handler.readable():
            poller.register_readable(fd)
        elif fd in poller.readables:
            poller.unregister_readable(fd)
        if handler.writable():
            poller.register_writable(fd)
        elif fd in poller.writables:
            poller.unregister_writable(fd)


def _output(handlers: Mapping[int, Any], readable: list[int]) -> int | None:
    """Forward the output of `readable`: bytes taken; None, and nothing done, when not all of it is output."""
    outputs = [handlers.get(fd) for fd in readable]
    if not all(isinstance(handler, OutputDispatcher) for handler in outputs):
        return None
    taken = 0
    for handler in outputs:
        assert isinstance(handler, OutputDispatcher)
        before = handler.output.bytes
        handler.handle_read_event()
        taken += handler.output.bytes - before
    return taken


def _handle(handlers: Mapping[int, Any], wake_fd: int, readable: list[int], writable: list[int]) -> None:
    for fd in readable:
        if fd == wake_fd:
            with contextlib.suppress(BlockingIOError):
                os.read(fd, 4096)
        elif fd in handlers:
            handlers[fd].handle_read_event()
    for fd in writable:
        if fd in handlers:
            handlers[fd].handle_write_event()
