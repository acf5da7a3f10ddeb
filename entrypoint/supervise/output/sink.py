"""Where lines go: one bounded queue and one writing thread per place, so that nothing else ever waits.

A reader that stops reading fills the queue; then the children's pipes are left unread (`congested`),
and when nothing has moved for `stall_after` seconds whole lines are dropped, counted, and said once
the reader is back. A place that cannot be written (disk full) drops at once and is tried again.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import stat
import threading
import time
from collections import deque
from collections.abc import Callable

from entrypoint.supervise.output.losses import Gap, Loss

QUEUE_BYTES = 8 << 20
STALL_AFTER = 5.0
"""Seconds that nobody reads before lines are dropped rather than held."""
RETRY_AFTER = 2.0
"""Seconds between two tries to write to a place that gave an error."""
_PIECE = 160 << 10
"""Bytes of one write: holds one full read with its prefixes."""
_SLOW_PIECE = 4 << 10
_BLOCK_COST = 64
"""Bytes that a queued block costs beside its own: bounds the memory of many tiny blocks."""
_GONE = frozenset((errno.EPIPE, errno.EBADF, errno.ECONNRESET, errno.ENOTCONN, errno.ENXIO))


def _nothing() -> None:
    pass


def _ignore(_text: str) -> None:
    pass


class Sink:
    """One place that lines are written to, by a thread of its own.

    `fd` is written as it is: its flags are never changed, and a non-blocking one is waited for.
    `what` names the place in messages ("our standard output", a path). `own_line` turns a message
    of ours into the bytes of one printed line. `on_space` is called from the writing thread when a
    congested sink has room again, `on_problem` when writing fails or works again; both must be
    quick and thread-safe.
    """

    def __init__(
        self,
        fd: int,
        what: str,
        own_line: Callable[[str], bytes],
        *,
        queue_bytes: int = QUEUE_BYTES,
        stall_after: float = STALL_AFTER,
        retry_after: float = RETRY_AFTER,
        on_space: Callable[[], None] = _nothing,
        on_problem: Callable[[str], None] = _ignore,
    ) -> None:
        self.fd = fd
        self.what = what
        self.lost: dict[str, Loss] = {}
        """Everything dropped so far, by process."""
        self.closed_reason: str | None = None
        """Why nothing is written any more (the reader is gone); None while the place is open."""
        self._own_line = own_line
        self._limit = queue_bytes
        self._low = queue_bytes // 2
        self._stall_after = stall_after
        self._retry_after = retry_after
        self._on_space = on_space
        self._on_problem = on_problem
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._queue: deque[bytes] = deque()
        self._size = 0
        """Cost of what is queued or being written."""
        self._moved_at = 0.0
        """Monotonic time of the last write that got through, or of the first block of a wait."""
        self._gap: Gap | None = None
        """Not None: lines are being dropped, until half of the queue is free."""
        self._was_full = False
        self._failing_since: float | None = None
        self._closing = False
        self._done = threading.Event()
        self._regular = stat.S_ISREG(os.fstat(fd).st_mode)
        self._piece = _PIECE
        self._thread = threading.Thread(target=self._run, name=f"write {what}", daemon=True)
        self._thread.start()

    @property
    def queued(self) -> int:
        """Bytes waiting to be written (with a small charge per block)."""
        return self._size

    @property
    def congested(self) -> bool:
        """True while no more should be put: the queue is full and its reader may only be slow.

        Turns False by itself once the reader has stood still for `stall_after` seconds; from then
        on lines are dropped.
        """
        if self._size < self._limit:
            return False
        with self._lock:
            if self._size < self._limit or self._gap or self._failing_since or self.closed_reason:
                return False
            stalled = time.monotonic() - self._moved_at
            if stalled < self._stall_after:
                self._was_full = True
                return True
            self._begin_gap()
            return False

    def stalls_at(self) -> float | None:
        """Monotonic time at which a congested sink turns to dropping; None when it is not congested."""
        return self._moved_at + self._stall_after if self.congested else None

    def put(self, block: bytes, source: str) -> bool:
        """Queue `block` (whole lines) of process `source`; False when it was dropped and counted.

        Never blocks. A full queue still takes one block, so that a read that has been done is not lost.
        """
        with self._lock:
            if self._gap or self.closed_reason or self._closing:
                return self._drop(block, source)
            if self._size >= self._limit and (self._failing_since or self._size >= 2 * self._limit):
                self._begin_gap()
                return self._drop(block, source)
            self._push(block)
            return True

    def say(self, block: bytes, source: str) -> bool:
        """Like `put`, for the few lines that matter most: taken also when the queue is full."""
        with self._lock:
            if self.closed_reason or self._closing or self._size >= 3 * self._limit:
                return self._drop(block, source)
            self._push(block)
            return True

    def close(self, deadline: float) -> bool:
        """Write what is queued until `deadline` (monotonic); True when all of it was written.

        The thread may stay blocked behind; it is a daemon and holds up no exit.
        """
        with self._lock:
            if not self._closing:
                self._end_gap()
            self._closing = True
            self._work.notify_all()
        self._done.wait(max(0.0, deadline - time.monotonic()))
        return self._done.is_set() and not self._size

    # All below: with the lock held, or in the writing thread.

    def _push(self, block: bytes) -> None:
        if not self._size:
            self._moved_at = time.monotonic()
        self._queue.append(block)
        self._size += len(block) + _BLOCK_COST
        self._work.notify()

    def _drop(self, block: bytes, source: str) -> bool:
        lines = block.count(b"\n")
        self.lost.setdefault(source, Loss()).add(lines, len(block))
        if self._gap:
            self._gap.by_source.setdefault(source, Loss()).add(lines, len(block))
        return False

    def _begin_gap(self) -> None:
        failing = self._failing_since is not None
        self._gap = Gap(f"{self.what} could not be written" if failing else f"nobody read {self.what}")

    def _end_gap(self) -> list[str]:
        gap, self._gap = self._gap, None
        if gap is None or not gap.by_source:
            return []
        gap.seconds = gap.seconds or time.monotonic() - self._moved_at
        self._push(self._own_line(str(gap)))
        return [f"{self.what}: {gap}"]

    def _run(self) -> None:
        # A signal taken by this thread would not interrupt the main thread's poll.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            with self._lock:
                while not self._queue and not self._closing:
                    self._work.wait()
                if not self._queue or self.closed_reason:
                    break
                data, cost = self._take()
            if not self._write(memoryview(data), cost):
                break
        self._done.set()

    def _take(self) -> tuple[bytes, int]:
        size = 0
        blocks: list[bytes] = []
        while self._queue and (not blocks or size + len(self._queue[0]) <= self._piece):
            blocks.append(self._queue.popleft())
            size += len(blocks[-1])
        return (blocks[0] if len(blocks) == 1 else b"".join(blocks)), size + _BLOCK_COST * len(blocks)

    def _write(self, data: memoryview, cost: int) -> bool:
        """Write all of `data`; False when the place is gone, or still failing at the end."""
        while data:
            began = time.monotonic()
            try:
                written = os.write(self.fd, data[: self._piece])
            except BlockingIOError:
                waiter = select.poll()
                waiter.register(self.fd, select.POLLOUT)
                waiter.poll(1000)
                continue
            except OSError as error:
                if error.errno in _GONE:
                    self._give_up(error)
                    return False
                if not self._wait_to_retry(error):
                    return False
                continue
            data = data[written:]
            share = written if data else cost
            cost -= share
            self._moved(share, began)
        return True

    def _moved(self, cost: int, began: float) -> None:
        """Book a write that began at `began` and freed `cost`."""
        now = time.monotonic()
        if not self._regular:
            # Small pieces to a slow reader: each one that gets through shows that it still reads.
            self._piece = _SLOW_PIECE if now - began > 0.25 else min(self._piece * 2, _PIECE)
        said = []
        with self._lock:
            self._size -= cost
            room = self._size <= self._low
            failing_since, self._failing_since = self._failing_since, None
            if failing_since is not None:
                said.append(f"{self.what} can be written again, after {now - failing_since:.1f} s")
            if self._gap:
                self._gap.seconds = self._gap.seconds or now - self._moved_at
                if room:
                    said += self._end_gap()
            self._moved_at = now
            wake = self._was_full and room
            if room:
                self._was_full = False
        for text in said:
            self._on_problem(text)
        if wake:
            self._on_space()

    def _wait_to_retry(self, error: OSError) -> bool:
        """False when the place still fails and we are to end."""
        with self._lock:
            first = self._failing_since is None
            if first:
                self._failing_since = time.monotonic()
        if first:
            text = f"cannot write {self.what}: {error.strerror}: make room; until then its lines wait, "
            self._on_problem(text + "and are dropped when too many")
            self._on_space()
        with self._lock:
            if not self._closing:
                self._work.wait_for(lambda: self._closing, self._retry_after)
            return not self._closing

    def _give_up(self, error: OSError) -> None:
        with self._lock:
            self.closed_reason = error.strerror or "closed"
            self._gap = None
            self._queue.clear()
            self._size = 0
        self._on_problem(f"{self.what} is closed: {self.closed_reason}: nothing more is written there")
        self._on_space()
