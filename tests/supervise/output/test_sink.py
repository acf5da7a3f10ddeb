"""Places that lines go to: slow, stopped, gone and full readers, on real descriptors."""

from __future__ import annotations

import fcntl
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from entrypoint.supervise.output.sink import Sink

LINE = b"x" * 99 + b"\n"
BLOCK = LINE * 100


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.002)


def own_line(text: str) -> bytes:
    return b"runner | " + text.encode() + b"\n"


SINKS: list[Sink] = []


def make_sink(fd: int, **options: object) -> Sink:
    SINKS.append(Sink(fd, "our standard output", own_line, **options))  # type: ignore[arg-type]
    return SINKS[-1]


def same(one: bytes, other: bytes) -> bool:
    """Keeps pytest from explaining the difference of megabytes."""
    return one == other


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read_end, write_end = os.pipe()
    yield read_end, write_end
    # Every writing thread must be gone before its descriptor's number is used again.
    with suppress(OSError):
        os.close(read_end)
    while SINKS:
        SINKS.pop().close(time.monotonic() + 5)
    with suppress(OSError):
        os.close(write_end)


def read_all(fd: int) -> tuple[threading.Thread, list[bytes]]:
    chunks: list[bytes] = []

    def run() -> None:
        while chunk := os.read(fd, 1 << 16):
            chunks.append(chunk)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, chunks


def fill(sink: Sink) -> int:
    """Put blocks until the sink is congested; how many it took."""
    count = 0
    while not sink.congested:
        assert sink.put(BLOCK, "child")
        count += 1
    return count


def test_what_is_put_arrives_in_order(pipe: tuple[int, int]) -> None:
    sink = make_sink(pipe[1])
    thread, chunks = read_all(pipe[0])
    wanted = b"".join(b"line %d\n" % i for i in range(20_000))
    for line in wanted.splitlines(keepends=True):
        sink.put(line, "child")
    assert sink.close(time.monotonic() + 10)
    os.close(pipe[1])
    thread.join(10)
    assert same(b"".join(chunks), wanted)
    assert sink.lost == {}


def test_a_slow_reader_holds_up_the_children_and_loses_nothing(pipe: tuple[int, int]) -> None:
    woken = threading.Event()
    sink = make_sink(pipe[1], queue_bytes=200_000, stall_after=60, on_space=woken.set)
    put = fill(sink)
    assert not woken.is_set()
    thread, chunks = read_all(pipe[0])
    assert woken.wait(10)
    assert not sink.congested
    assert sink.close(time.monotonic() + 10)
    os.close(pipe[1])
    thread.join(10)
    assert same(b"".join(chunks), BLOCK * put)


def test_a_reader_that_stands_still_loses_whole_lines_which_are_counted_and_said(
    pipe: tuple[int, int],
) -> None:
    sink = make_sink(pipe[1], queue_bytes=200_000, stall_after=0.2)
    put = fill(sink)
    assert sink.stalls_at() == pytest.approx(time.monotonic() + 0.2, abs=0.2)
    wait_for(lambda: not sink.congested)
    assert sink.stalls_at() is None
    for _ in range(7):
        assert not sink.put(BLOCK, "child")
    assert not sink.put(LINE, "other")
    assert sink.lost["child"].lines == 700
    thread, chunks = read_all(pipe[0])
    wait_for(lambda: sink.queued == 0)
    assert sink.put(b"after\n", "child")
    assert sink.close(time.monotonic() + 10)
    os.close(pipe[1])
    thread.join(10)
    *lines, message, last, end = b"".join(chunks).split(b"\n")
    assert same(b"\n".join(lines) + b"\n", BLOCK * put)
    assert message.startswith(
        b"runner | 701 lines (70100 bytes) of output dropped (child 700, other 1): "
        b"nobody read our standard output for "
    )
    assert (last, end) == (b"after", b"")


def test_our_own_lines_are_taken_while_the_childrens_are_dropped(pipe: tuple[int, int]) -> None:
    sink = make_sink(pipe[1], queue_bytes=100_000, stall_after=0.05)
    fill(sink)
    wait_for(lambda: not sink.congested)
    assert not sink.put(LINE, "child")
    assert sink.say(b"runner | stopping\n", "runner")
    thread, chunks = read_all(pipe[0])
    assert sink.close(time.monotonic() + 10)
    os.close(pipe[1])
    thread.join(10)
    assert b"\nrunner | stopping\n" in b"".join(chunks)


def test_memory_stays_bounded_when_nobody_reads(pipe: tuple[int, int]) -> None:
    sink = make_sink(pipe[1], queue_bytes=4 << 20, stall_after=0.01)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tiny = 0
    deadline = time.monotonic() + 30
    while sink.lost.get("child") is None or sink.lost["child"].bytes < 1_000_000_000:
        assert time.monotonic() < deadline
        sink.put(LINE * 10_000 if tiny > 200_000 else b"x\n", "child")
        tiny += 1
        _ = sink.congested
    assert sink.queued <= 8 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 << 10


def test_a_closed_reader_ends_the_place_and_nothing_else(pipe: tuple[int, int]) -> None:
    woken, said = threading.Event(), list[str]()
    sink = make_sink(pipe[1], queue_bytes=100_000, on_space=woken.set, on_problem=said.append)
    fill(sink)
    os.close(pipe[0])
    assert woken.wait(10)
    assert not sink.congested
    assert not sink.put(BLOCK, "child")
    assert sink.lost["child"].lines == 100
    assert sink.closed_reason == "Broken pipe"
    assert said == ["our standard output is closed: Broken pipe: nothing more is written there"]
    assert sink.close(time.monotonic() + 1)


def test_a_full_disk_is_said_once_waited_for_and_counted(tmp_path: Path) -> None:
    said: list[str] = []
    path = tmp_path / "log"
    fd = os.open("/dev/full", os.O_WRONLY)
    sink = make_sink(fd, queue_bytes=100_000, retry_after=0.02, on_problem=said.append)
    sink.put(b"first\n", "child")
    wait_for(lambda: bool(said))
    assert said[0].startswith("cannot write our standard output: No space left on device: make room")
    while sink.put(BLOCK, "child"):
        assert not sink.congested  # a full disk never holds up a child
    assert sink.lost["child"].lines == 100
    # The same descriptor finds room again.
    good = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(good, fd)
    wait_for(lambda: sink.queued == 0)
    assert sink.close(time.monotonic() + 10)
    text = path.read_bytes()
    assert text.startswith(b"first\n" + BLOCK)
    assert text.count(b"\n") == 1 + text.count(LINE) + 1
    assert b"\nrunner | 100 lines (10000 bytes) of output dropped: our standard output could not be" in text
    assert said[1].startswith("our standard output can be written again, after ")
    assert len(said) == 3
    assert "100 lines (10000 bytes)" in said[2]


def test_a_full_disk_does_not_hold_up_the_end() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    sink = make_sink(fd, retry_after=60)
    sink.put(LINE, "child")
    began = time.monotonic()
    assert not sink.close(began + 5)
    assert time.monotonic() - began < 4


def test_a_stopped_reader_does_not_hold_up_the_end(pipe: tuple[int, int]) -> None:
    sink = make_sink(pipe[1], queue_bytes=200_000)
    fill(sink)
    began = time.monotonic()
    assert not sink.close(began + 0.1)
    assert 0.05 < time.monotonic() - began < 2


def test_the_descriptors_flags_stay_and_a_non_blocking_one_works(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    flags = fcntl.fcntl(pipe[1], fcntl.F_GETFL)
    sink = make_sink(pipe[1], queue_bytes=500_000, stall_after=60)
    put = fill(sink)
    thread, chunks = read_all(pipe[0])
    assert sink.close(time.monotonic() + 10)
    assert fcntl.fcntl(pipe[1], fcntl.F_GETFL) == flags
    os.close(pipe[1])
    thread.join(10)
    assert same(b"".join(chunks), BLOCK * put)


def test_a_reader_that_is_only_slow_is_never_taken_for_stopped(pipe: tuple[int, int]) -> None:
    sink = make_sink(pipe[1], queue_bytes=50_000, stall_after=1.0)
    until = time.monotonic() + 2
    fill(sink)
    read = 0
    while time.monotonic() < until:
        read += len(os.read(pipe[0], 8192))
        time.sleep(0.05)
        while not sink.congested:
            assert sink.put(BLOCK, "child")
    assert read > 100_000
    assert sink.lost == {}
