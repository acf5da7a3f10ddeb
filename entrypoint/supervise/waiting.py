"""One wait of the supervisor's loop.

Whatever the loop must act on (a signal, a child's end, an answer of a probe, a control connection) ends
the wait at once. Output alone does not: it is forwarded here, many reads to one turn of the loop, since a
turn costs more than a read.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from entrypoint.supervise.child import OutputReader

SPAN = 0.05
"""Seconds that output may keep the loop from turning."""
PAUSE = 0.0002
"""Seconds to let output gather before the next read: line by line, a read costs more than its line. Longer,
and a fast writer would fill its pipe and wait for us."""
LITTLE = 16 << 10
"""Bytes: a round of reads that gave less is followed by a pause."""

RESERVED = 4
"""Descriptors: a look at /proc takes two at a time."""

Ready = list[tuple[selectors.SelectorKey, int]]


class Handler(Protocol):
    """What can be waited for: a child's output, or a connection of the control socket."""

    def readable(self) -> bool:
        """Whether input is wanted now."""

    def writable(self) -> bool:
        """Whether there is something to write now."""

    def handle_read_event(self) -> None:
        """Input is there, or the other end is gone."""


class Reserve:
    """Descriptors that nobody uses: what comes last must be able to look at processes where none is left."""

    def __init__(self, fd: int) -> None:
        """Copies of `fd`, RESERVED of them, or as many as there can be."""
        self._held: list[int] = []
        with contextlib.suppress(OSError):
            while len(self._held) < RESERVED:
                self._held.append(os.dup(fd))

    def release(self) -> None:
        """Let them be used."""
        while self._held:
            os.close(self._held.pop())


class Waiting:
    """The descriptors of one loop."""

    def __init__(self, wake_fd: int) -> None:
        """Whatever is written to `wake_fd`'s other end ends a wait; it is read here."""
        self._selector = selectors.PollSelector()
        self._wake = self._selector.register(wake_fd, selectors.EVENT_READ)
        self._known: dict[int, selectors.SelectorKey] = {}

    def wait(self, handlers: Mapping[int, Handler], timeout: float) -> None:
        """Wait at most `timeout` seconds for one of `handlers` (by descriptor) or the wake-up; handle it."""
        self._register(handlers)
        deadline = time.monotonic() + timeout
        ready = self._selector.select(timeout)
        end = min(deadline, time.monotonic() + SPAN)
        while True:
            readers = _outputs(ready)
            if readers is None:
                return self._handle(ready)
            taken = _forward(readers)
            left = end - time.monotonic()
            if left <= 0 or not readers or any(not reader.readable() for reader in readers):
                return None
            if taken < LITTLE:
                time.sleep(min(PAUSE, left))
            ready = self._selector.select(left)

    def _register(self, handlers: Mapping[int, Handler]) -> None:
        wanted = {fd: (events, handler) for fd, handler in handlers.items() if (events := _events(handler))}
        for fd in self._known.keys() - wanted.keys():
            self._selector.unregister(fd)
            del self._known[fd]
        for fd, (events, handler) in wanted.items():
            key = self._known.get(fd)
            if key is None:
                self._known[fd] = self._selector.register(fd, events, handler)
            elif key.events != events or key.data is not handler:
                self._known[fd] = self._selector.modify(fd, events, handler)

    def _handle(self, ready: Ready) -> None:
        for key, events in ready:
            if key.fd == self._wake.fd:
                with contextlib.suppress(BlockingIOError):
                    os.read(key.fd, 4096)
            elif isinstance(key.data, OutputReader):
                key.data.handle_read_event()
            else:
                _converse(key.data, events)


def _converse(connection: Any, events: int) -> None:
    """Read and write on a control connection; whoever left in the middle of it harms nobody else."""
    try:
        if events & selectors.EVENT_READ:
            connection.handle_read_event()
        if events & selectors.EVENT_WRITE:
            connection.handle_write_event()
    except Exception:
        connection.handle_error()


def _events(handler: Handler) -> int:
    return (selectors.EVENT_READ if handler.readable() else 0) | (
        selectors.EVENT_WRITE if handler.writable() else 0
    )


def _outputs(ready: Ready) -> list[OutputReader] | None:
    """The children whose output is ready; None when that is not all there is to do."""
    readers = [key.data for key, _ in ready if isinstance(key.data, OutputReader)]
    return readers if len(readers) == len(ready) else None


def _forward(readers: Iterable[OutputReader]) -> int:
    """Forward what they have written: how many bytes."""
    taken = 0
    for reader in readers:
        before = reader.output.bytes
        reader.handle_read_event()
        taken += reader.output.bytes - before
    return taken
