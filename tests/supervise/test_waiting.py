"""One wait of the loop: output is taken without turning, everything else ends the wait."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from entrypoint.supervise.child import OutputReader
from entrypoint.supervise.output.forwarding import Output, make_pipe
from entrypoint.supervise.waiting import SPAN, Waiting


class Loop:
    """A poller, a wake pipe, and one child's output that goes to a pipe nobody needs to read."""

    def __init__(self) -> None:
        self.wake, self.wake_write = os.pipe2(os.O_NONBLOCK)
        self.waiting = Waiting(self.wake)
        self.null = os.open(os.devnull, os.O_WRONLY)
        self.read, self.write = make_pipe()
        self.child = Output(["child"], stdout=self.null).child("child", self.read)
        self.handlers: dict[int, Any] = {self.read: OutputReader(self.child)}

    def run(self, timeout: float) -> float:
        """One wait; how long it took."""
        began = time.monotonic()
        self.waiting.wait(self.handlers, timeout)
        return time.monotonic() - began


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    for fd in (made.wake, made.wake_write, made.read, made.write):
        os.close(fd)


def test_many_writes_are_taken_in_one_wait(loop: Loop) -> None:
    def writer() -> None:
        for number in range(200):
            os.write(loop.write, b"line %d\n" % number)

    thread = threading.Thread(target=writer)
    thread.start()
    waits = 0
    while loop.child.bytes < sum(len(b"line %d\n" % n) for n in range(200)):
        loop.run(1.0)
        waits += 1
    thread.join()
    assert waits < 100


def test_a_flood_keeps_the_loop_only_for_its_span(loop: Loop) -> None:
    over = threading.Event()

    def flood() -> None:
        while not over.is_set():
            os.write(loop.write, b"x" * 99 + b"\n")

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        took = min(loop.run(10.0) for _ in range(5))
    finally:
        over.set()
        while thread.is_alive():
            loop.run(0.0)
    assert took < SPAN * 5


def test_an_event_ends_the_wait_and_is_consumed(loop: Loop) -> None:
    os.write(loop.write, b"a line\n")
    os.write(loop.wake_write, b"\0")
    loop.run(30.0)
    assert loop.child.bytes == 7
    with pytest.raises(BlockingIOError):
        os.read(loop.wake, 1)


def test_without_time_it_looks_once(loop: Loop) -> None:
    os.write(loop.write, b"a line\n")
    loop.run(0.0)
    assert loop.child.bytes == 7


def test_the_end_of_a_stream_does_not_spin(loop: Loop) -> None:
    os.close(loop.write)
    loop.run(0.2)
    assert not loop.handlers[loop.read].readable()
    assert loop.run(0.1) >= 0.09
    loop.write = os.open(os.devnull, os.O_WRONLY)
