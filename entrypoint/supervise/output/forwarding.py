"""Forwarding of the children's output, and our own lines among it.

`Output` owns the places (our standard output, one file per process in GLM47_LOG_DIR); a
`ChildOutput` reads one child's pipe. Used by a single-threaded poll loop, which polls `child.fd` only while
not `child.congested`, calls `child.handle_read()` when it is readable, and closes it when that says False.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType

from entrypoint.plan.own_questions import without_own
from entrypoint.supervise.output.lines import Block, Formatter, LineSplitter, stamp, strip_escapes
from entrypoint.supervise.output.log_files import EVENTS, RUNNER, open_logs
from entrypoint.supervise.output.losses import Loss
from entrypoint.supervise.output.sink import QUEUE_BYTES, RETRY_AFTER, STALL_AFTER, Sink

F_SETPIPE_SZ = 1031
"""Linux; the fcntl module has it from Python 3.10 on only when built against new headers."""
READ_SIZE = 128 << 10
"""Bytes of one read. With less, the threads take turns more often than the work is worth."""
IDLE_AFTER = 1.0
"""Seconds of silence after which an unterminated line is printed as it is."""
READS = 4
"""Reads of one turn at most, so that one flooding child does not hold up the others."""
PIPE_SIZE = 256 << 10
EVENTS_KEPT, EVENT_SIZE = 1000, 4096
"""So many of the last events are kept, and characters of each at most: longer ones are elsewhere too."""
TAIL_BYTES = 512 << 10
TAIL_BLOCKS = 8192
"""What is kept of a child's last output. SGLang goes on for 5 s after its scheduler has crashed, and a busy
worker wrote 200 KB in that time: the crash must still be in it."""


class Output:
    """All places that output goes to, and the format it has there.

    `names` are the processes (their longest sets the column width). `log_dir` is created when
    missing; files are `<log_dir>/<name>.log` (`log_names`: another stem for some), appended to, never
    with escape sequences. `dated`: our own lines have their time. Raises CannotWriteError (73) when a file
    cannot be opened. `on_space` is called from a writing thread when a congested place has room again: it
    must only wake the loop.
    """

    def __init__(
        self,
        names: Iterable[str],
        *,
        log_format: str = "text",
        log_dir: str | None = None,
        log_names: Mapping[str, str] = MappingProxyType({}),
        dated: bool = False,
        stdout: int = 1,
        queue_bytes: int = QUEUE_BYTES,
        stall_after: float = STALL_AFTER,
        retry_after: float = RETRY_AFTER,
        on_space: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.names = [*names]
        self.clock = clock
        width = max(map(len, (*self.names, RUNNER)))
        shape = partial(Formatter, log_format, width=width, dated=RUNNER if dated else "")
        self.plain = shape()
        self.formatter = shape(colours=True) if os.isatty(stdout) else self.plain
        names = [*self.names, RUNNER, EVENTS]
        opened = open_logs(log_dir, names, log_names) if log_dir is not None else {}

        def own_line(text: str) -> bytes:
            return self.plain.format(RUNNER, _own_block(text), self.clock())

        def sink(fd: int, what: str, on_problem: Callable[[str], None]) -> Sink:
            return Sink(
                fd,
                what,
                own_line,
                queue_bytes=queue_bytes,
                stall_after=stall_after,
                retry_after=retry_after,
                on_space=on_space,
                on_problem=on_problem,
            )

        self.stdout = sink(stdout, "our standard output", self._say_in_file)
        self.files = {name: sink(fd, path, self._say_on_stdout) for name, (path, fd) in opened.items()}
        self._history = self.files.pop(EVENTS, None)
        self._recent: deque[str] = deque(maxlen=EVENTS_KEPT)
        # Files are appended to: where this run begins in each.
        begins = {Path(path).name: os.fstat(fd).st_size for path, fd in opened.values()}
        self.record({"begins": begins})

    def child(self, name: str, fd: int, on_lines: Callable[[list[str]], None] | None = None) -> ChildOutput:
        """The reader of process `name`, whose pipe's non-blocking read end is `fd`."""
        return ChildOutput(self, name, fd, on_lines)

    def say(self, text: str) -> None:
        """One line of our own, or several when `text` has newlines. Thread-safe, never blocks."""
        self._say_on_stdout(text)
        self._say_in_file(text)
        self.record({"line": text})

    def record(self, event: Mapping[str, object]) -> None:
        """Leave `event`, with the time, in the file of events, where there is a log directory.

        Thread-safe, never blocks.
        """
        line = json.dumps({"ts": stamp(self.clock()), **event}, ensure_ascii=False)
        if len(line) <= EVENT_SIZE:
            self._recent.append(line)
        if self._history is not None:
            self._history.say(line.encode("utf-8", "replace") + b"\n", RUNNER)

    def recent(self, events: int) -> list[str]:
        """The last `events` events, one JSON object each, newest last. Safe from any thread."""
        return [*self._recent][-events:]

    def show(self, text: str) -> None:
        """Several lines to be copied by a person: without a prefix, except where lines are JSON objects."""
        if self.formatter.json:
            self.say(text)
        else:
            self.stdout.say(text.encode("utf-8", "replace") + b"\n", RUNNER)

    def write(self, name: str, block: Block) -> int:
        """Send `block` of process `name` to its places; returns how many lines it has."""
        now = self.clock()
        printed = self.formatter.format(name, block, now)
        self.stdout.put(printed, name)
        file = self.files.get(name)
        if file is not None:
            plain = printed if self.formatter is self.plain else self.plain.format(name, block, now)
            file.put(plain, name)
        return self.formatter.lines_of(name, block.data, printed)

    def congested(self, name: str) -> bool:
        """True while the pipe of process `name` should not be read."""
        if self.stdout.congested:
            return True
        file = self.files.get(name)
        return file is not None and file.congested

    def paths(self) -> dict[str, str]:
        """Where each process's log is written; empty without a log directory."""
        return {name: sink.what for name, sink in self.files.items()}

    def next_change(self) -> float | None:
        """Monotonic time at which a congested place turns to dropping, so that the loop looks again."""
        times = [at for sink in (self.stdout, *self.files.values()) if (at := sink.stalls_at()) is not None]
        return min(times, default=None)

    def lost(self) -> dict[str, dict[str, Loss]]:
        """What was dropped so far: place, then process."""
        sinks = (self.stdout, *self.files.values())
        return {sink.what: dict(sink.lost) for sink in sinks if sink.lost}

    def close(self, deadline: float) -> bool:
        """Write what is queued until `deadline` (monotonic seconds); True when nothing was left."""
        # Files first: their last problems still reach the standard output.
        files = [*self.files.values(), *([self._history] if self._history is not None else [])]
        done = [sink.close(deadline) for sink in (*files, self.stdout)]
        for file, finished in zip(files, done, strict=False):
            if finished:
                os.close(file.fd)
        return all(done)

    def _say_on_stdout(self, text: str) -> None:
        self.stdout.say(self.formatter.format(RUNNER, _own_block(text), self.clock()), RUNNER)

    def _say_in_file(self, text: str) -> None:
        file = self.files.get(RUNNER)
        if file is not None:
            file.say(self.plain.format(RUNNER, _own_block(text), self.clock()), RUNNER)


class ChildOutput:
    """Reads one child's pipe and forwards it line by line.

    `on_lines` gets the decoded lines of each read, without escapes, as long as `parse` is true: decoding
    costs more than forwarding. `on_data`, if set, gets all that is forwarded, and how many lines it has.
    """

    def __init__(
        self, output: Output, name: str, fd: int, on_lines: Callable[[list[str]], None] | None = None
    ) -> None:
        self.name = name
        self.fd = fd
        self.parse = on_lines is not None
        self.bytes = self.lines = 0
        self.read_at = time.monotonic()
        """Monotonic time of the last read that gave something."""
        self._output = output
        self._on_lines = on_lines
        self.on_data: Callable[[bytes, int], None] | None = None
        self._splitter = LineSplitter()
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._finished = False

    @property
    def congested(self) -> bool:
        """True while the pipe should not be polled: a place is full and its reader may only be slow."""
        return self._output.congested(self.name)

    def handle_read(self) -> bool:
        """Read what is there, up to READS times READ_SIZE bytes, and forward it.

        False at the end of the stream; the unterminated rest has been forwarded then.
        """
        for _ in range(READS):
            try:
                chunk = os.read(self.fd, READ_SIZE)
            except BlockingIOError:
                return True
            except OSError:  # EIO: the last writer of a terminal is gone
                chunk = b""
            if not chunk:
                self.finish()
                return False
            self.bytes += len(chunk)
            self.read_at = time.monotonic()
            self._forward(self._splitter.feed(chunk))
            if len(chunk) < READ_SIZE:
                break
        return True

    def drain(self, limit: int = 4 << 20) -> bool:
        """Read what is in the pipe now, at most about `limit` bytes; False at the end of the stream.

        For a process that has ended while a descendant may still hold its pipe open.
        """
        before = self.bytes
        while self.bytes - before < limit:
            seen = self.bytes
            if not self.handle_read():
                return False
            if self.bytes == seen:
                break
        return True

    def flush_idle(self, now: float) -> bool:
        """Print an unterminated line when nothing came for IDLE_AFTER seconds before `now` (monotonic)."""
        if not self._splitter.pending or now - self.read_at < IDLE_AFTER:
            return False
        blocks = self._splitter.flush_idle()
        self._forward(blocks)
        return bool(blocks)

    def finish(self) -> None:
        """Forward the unterminated rest; nothing more will come."""
        if not self._finished:
            self._finished = True
            self._forward(self._splitter.finish())

    def tail(self, lines: int = 40) -> list[str]:
        """The last `lines` lines, newest last, as far as about TAIL_BYTES hold them. Safe from any thread."""
        return strip_escapes(b"".join([*self._tail])).decode("utf-8", "replace").split("\n")[:-1][-lines:]

    def _forward(self, blocks: list[Block]) -> None:
        for block in blocks:
            if not (block.continues or block.unfinished):
                block = block._replace(data=without_own(block.data))
            data = block.data
            if not data:
                continue
            self.lines += (count := self._output.write(self.name, block))
            self._tail_size += len(data)
            self._tail.append(data)
            while len(self._tail) > TAIL_BLOCKS or self._tail_size - len(self._tail[0]) >= TAIL_BYTES:
                self._tail_size -= len(self._tail.popleft())
            if self.on_data is not None:
                self.on_data(data, count)
            if self.parse and self._on_lines is not None:
                self._on_lines(strip_escapes(data)[:-1].decode("utf-8", "replace").split("\n"))


def make_pipe() -> tuple[int, int]:
    """A pipe for a child's output: non-blocking read end, blocking write end, both close-on-exec.

    As large as an ordinary user may make it, so that a busy loop does not hold up the child.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read_end, False)
    with suppress(OSError):  # a user with many pipes gets the ordinary size
        fcntl.fcntl(write_end, F_SETPIPE_SZ, PIPE_SIZE)
    return read_end, write_end


def _own_block(text: str) -> Block:
    return Block(text.encode("utf-8", "replace") + b"\n")
