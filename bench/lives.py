"""The lives of a container that are measured. Each returns seconds (or MB) of one repetition.

None stands for "not within the limit": the system had the chance and did not take it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import container
from bench.container import FLOOD, REPORT_TERM, SLEEP, Events
from bench.lines import Counts, count_lines
from bench.log_forwarding import CHILD as WRITER
from bench.systems import Job, System, environment
from tests.support.runner import free_port

LIMIT = 2.0
"""Seconds that a signal or a readiness may take to arrive before it counts as not arriving."""
CRASH_LIMIT = 10.0
"""The same for the end of a container whose worker is gone."""
QUIET = 30.0
"""Seconds without a byte after which the last line counts as lost."""
BLOCKED_FOR = 0.5
"""Seconds that nobody has read for when the signal comes."""


@dataclass
class Life:
    """A container that has just been started."""

    process: subprocess.Popen[bytes]
    started: float
    """When its first process was executed (monotonic seconds)."""
    events: Events

    def supervising(self) -> list[int]:
        """Every process of the container that is not a measured child or below one."""
        below = [self.process.pid, *container.descendants(self.process.pid)]
        children = self.events.pids
        theirs = {pid for child in children for pid in container.descendants(child)}
        return [pid for pid in below if pid not in children | theirs]


@contextlib.contextmanager
def life(
    system: System,
    model: Path,
    behaviours: dict[str, str],
    stdout: int,
    *,
    fate: bool = False,
    serving: bool = False,
) -> Iterator[Life]:
    """Start a container of `system`; whatever is left of it is killed at the end.

    `fate`: the container must end when its worker does. `serving`: the worker's server says that it is
    ready; otherwise it loads for ever, and nothing has to be drained before it is stopped.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        events = Events(folder)
        ports = free_port(), free_port(), free_port()
        behaviours = dict.fromkeys(("etcd", "nats", "worker"), SLEEP) | behaviours
        command = system.prepare(Job(folder, behaviours, *ports, model, fate, serving))
        variables = {"BENCH_EVENTS": str(events.path), "BENCH_GO": str(events.go_path)}
        env = environment({**command.env, **variables})
        started, process = container.start(command.argv, env, folder, stdout)
        try:
            yield Life(process, started, events)
        finally:
            container.end(process)
            events.close()


@dataclass(frozen=True)
class Start:
    """A start, and a stop whose output somebody reads."""

    first_spawn: float | None
    term: float | None
    rss: float
    pss: float


def start(system: System, model: Path) -> Start:
    """From exec to the first child's exec; memory; SIGTERM to the worker's receipt."""
    with life(system, model, {"worker": REPORT_TERM}, subprocess.DEVNULL) as it:
        it.events.go()
        first = it.events.wait("exec")
        if first is None or it.events.wait("exec", "worker") is None:
            raise RuntimeError(f"{system.name} started no child")
        time.sleep(system.settle)
        rss, pss = container.memory(it.supervising())
        return Start(first.at - it.started, _term(it), rss, pss)


def _term(it: Life) -> float | None:
    at = time.monotonic()
    it.process.send_signal(signal.SIGTERM)
    received = it.events.wait("term", "worker", LIMIT)
    return received.at - at if received else None


@dataclass(frozen=True)
class Fate:
    """A dependency, and the end of a worker."""

    dependent: float | None
    crash: float | None


def fate(system: System, model: Path) -> Fate:
    """From etcd's readiness to the worker's exec; from the worker's death to the container's exit."""
    with life(system, model, {}, subprocess.DEVNULL, fate=True) as it:
        if it.events.wait("exec", "etcd") is None:
            raise RuntimeError(f"{system.name} started no child")
        dependent = None
        if system.gates:
            # Not in step with whatever asks again and again.
            time.sleep(random.uniform(0.3, 0.6))
            ready = it.events.go()
            worker = it.events.wait("exec", "worker", LIMIT)
            dependent = worker.at - ready if worker else None
        else:
            worker = it.events.wait("exec", "worker")
        if worker is None:
            return Fate(dependent, None)
        time.sleep(system.started_after)
        at = time.monotonic()
        os.kill(worker.pid, signal.SIGKILL)
        return Fate(dependent, time.monotonic() - at if _ends(it.process, CRASH_LIMIT) else None)


def _ends(process: subprocess.Popen[bytes], limit: float) -> bool:
    """Wait until it has ended, at most `limit` seconds; `Popen.wait` would look every 50 ms."""
    descriptor = os.pidfd_open(process.pid)
    try:
        return bool(select.select([descriptor], [], [], limit)[0])
    finally:
        os.close(descriptor)


def blocked(system: System, model: Path) -> float | None:
    """SIGTERM to the worker's receipt, with a standard output that is full and that nobody reads."""
    read, write = os.pipe()
    try:
        with life(system, model, {"worker": REPORT_TERM, "nats": FLOOD}, write) as it:
            it.events.go()
            if it.events.wait("exec", "worker") is None or it.events.wait("exec", "nats") is None:
                return None
            seen, since = -1, time.monotonic()
            while time.monotonic() - since < BLOCKED_FOR:
                filled = struct.unpack("i", fcntl.ioctl(read, termios.FIONREAD, b"\0" * 4))[0]
                if filled != seen or not filled:
                    seen, since = filled, time.monotonic()
                time.sleep(0.01)
            return _term(it)
    finally:
        os.close(read)
        os.close(write)


@dataclass(frozen=True)
class Lines:
    """A worker's lines, forwarded."""

    seconds: float
    """From the worker's first write until no more came out."""
    counts: Counts


def lines(system: System, model: Path, count: int, style: str) -> Lines:
    """`count` lines of the worker through the system, a pipe and `cat` into a file.

    `style` is how they are written: `print`, Python's own way, or `raw`, from memory by 64 KiB.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        out, stamp, writer = Path(name, "out"), Path(name, "stamp"), Path(name, "writer.py")
        writer.write_text(WRITER)
        worker = f"exec {sys.executable} -u {writer} {count} {stamp} {style} stay"
        with out.open("wb") as file:
            cat = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file)
        assert cat.stdin is not None
        with life(system, model, {"worker": worker}, cat.stdin.fileno(), serving=True) as it:
            it.events.go()
            cat.stdin.close()
            ended = _last_line(out, b"line %07d " % (count - 1))
        cat.wait()
        return Lines(ended - float(stamp.read_text()), count_lines(out.read_bytes(), system.prefix, count))


def _last_line(out: Path, text: bytes) -> float:
    """When `text` is at the end of `out` (monotonic seconds), or else when it last grew."""
    size, grown = 0, time.monotonic()
    with out.open("rb") as file:
        while time.monotonic() - grown < QUIET:
            if (now := out.stat().st_size) != size:
                size, grown = now, time.monotonic()
                file.seek(max(0, size - 400))
                if text in file.read():
                    return grown
            time.sleep(0.002)
    return grown
