"""Whole path: real children, real pipes, our standard output and log files."""

from __future__ import annotations

import json
import os
import random
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from entrypoint.commands.diagnose.sources import _split
from entrypoint.errors import CannotWriteError, ExitCode
from entrypoint.supervise.output.forwarding import ChildOutput, Output, make_pipe


def same(one: object, other: object) -> bool:
    """Keeps pytest from explaining the difference of a million lines."""
    return one == other


class Reader:
    """Our standard output's other end."""

    def __init__(self) -> None:
        self.fd, self.write_end = os.pipe()
        self._chunks: list[bytes] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while chunk := os.read(self.fd, 1 << 16):
            self._chunks.append(chunk)

    def all(self) -> bytes:
        os.close(self.write_end)
        self._thread.join(20)
        os.close(self.fd)
        return b"".join(self._chunks)


@contextmanager
def spawned(code: str, *args: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    read_end, write_end = make_pipe()
    process = subprocess.Popen([sys.executable, "-c", code, *args], stdout=write_end, stderr=write_end)
    os.close(write_end)
    try:
        yield read_end, process
    finally:
        process.kill()
        process.wait()
        os.close(read_end)


def forward(children: list[ChildOutput], seconds: float = 60) -> None:
    """The poll loop in small: until every child's stream has ended."""
    open_children = {child.fd: child for child in children}
    deadline = time.monotonic() + seconds
    while open_children:
        assert time.monotonic() < deadline
        poll = select.poll()
        for fd, child in open_children.items():
            if not child.congested:
                poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(10):
            if not open_children[fd].handle_read():
                del open_children[fd]


COUNT_LINES = """
import sys
for i in range(int(sys.argv[2])):
    print(sys.argv[1], i)
"""


def test_a_million_lines_of_two_children_are_neither_lost_nor_joined(tmp_path: Path) -> None:
    reader = Reader()
    reader.start()
    output = Output(["a", "bee"], stdout=reader.write_end, log_dir=str(tmp_path))
    with spawned(COUNT_LINES, "a", "500000") as (one, _), spawned(COUNT_LINES, "b", "500000") as (two, _):
        forward([output.child("a", one), output.child("bee", two)])
    output.say("done")
    assert output.close(time.monotonic() + 20)
    printed = reader.all()
    assert output.lost() == {}
    lines = printed.split(b"\n")
    assert lines.pop() == b""
    assert lines.pop() == b"runner | done"
    assert same([line for line in lines if line[:1] == b"a"], [b"a      | a %d" % i for i in range(500_000)])
    assert same([line for line in lines if line[:1] == b"b"], [b"bee    | b %d" % i for i in range(500_000)])
    assert len(lines) == 1_000_000
    assert same(
        (tmp_path / "a.log").read_bytes().split(b"\n")[:-1], [b"a      | a %d" % i for i in range(500_000)]
    )
    assert (tmp_path / "runner.log").read_bytes() == b"runner | done\n"


def test_a_blocked_standard_output_stops_neither_the_child_nor_the_file(tmp_path: Path) -> None:
    reader = Reader()  # not started: nobody reads
    output = Output(
        ["a"], stdout=reader.write_end, log_dir=str(tmp_path), queue_bytes=1 << 20, stall_after=0.2
    )
    with spawned(COUNT_LINES, "a", "300000") as (fd, _):
        forward([output.child("a", fd)])
    output.say("the child has ended")
    lost = output.lost()["our standard output"]["a"].lines
    reader.start()
    assert output.close(time.monotonic() + 20)
    lines = reader.all().split(b"\n")[:-1]
    kept = [line for line in lines if line.startswith(b"a ")]
    assert same(kept, [b"a      | a %d" % i for i in range(300_000 - lost)])
    assert len(kept) + lost == 300_000
    assert sum(b"%d lines (" % lost in line for line in lines) == 1
    assert (tmp_path / "a.log").read_bytes().count(b"\n") == 300_000


def test_a_full_file_stops_neither_the_child_nor_the_standard_output(tmp_path: Path) -> None:
    (tmp_path / "a.log").symlink_to("/dev/full")
    reader = Reader()
    reader.start()
    output = Output(
        ["a"], stdout=reader.write_end, log_dir=str(tmp_path), queue_bytes=1 << 20, retry_after=0.05
    )
    with spawned(COUNT_LINES, "a", "300000") as (fd, _):
        forward([output.child("a", fd)])
    assert not output.close(time.monotonic() + 5)
    lines = reader.all().split(b"\n")[:-1]
    assert same(
        [line for line in lines if line.startswith(b"a ")], [b"a      | a %d" % i for i in range(300_000)]
    )
    own = [line for line in lines if line.startswith(b"runner")]
    assert len(own) == 1
    assert f"cannot write {tmp_path}/a.log: No space left on device".encode() in own[0]
    assert output.lost()[f"{tmp_path}/a.log"]["a"].lines > 0


LOGS = Path(__file__).parents[1] / "failures" / "data"


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("name", ["cold", "killparent", "schedstart", "stopsched", "termstart"])
def test_a_real_engine_log_replayed_in_random_chunks(name: str, log_format: str) -> None:
    log = (LOGS / f"{name}.log").read_bytes()
    assert b"\r" in log and b"\x1b[" in log
    wanted = [
        re.sub(rb"\x1b\[[0-9;]*m", b"", line)
        for line, end in re.findall(rb"([^\r\n]*)(\r\n|\r|\n)", log)
        if line or end != b"\r"
    ]
    chunk = random.Random(name)
    reader = Reader()
    reader.start()
    output = Output(["decode"], stdout=reader.write_end, log_format=log_format)
    read_end, write_end = make_pipe()
    seen: list[str] = []
    child = output.child("decode", read_end, seen.extend)
    rest = log
    while rest:
        size = chunk.choice([1, 7, 100, 1000, 30_000])
        os.write(write_end, rest[:size])
        rest = rest[size:]
        assert child.handle_read()
    os.close(write_end)
    assert not child.handle_read()
    os.close(read_end)
    assert output.close(time.monotonic() + 10)
    printed = reader.all().split(b"\n")[:-1]
    if log_format == "text":
        assert printed == [b"decode | " + line for line in wanted]
    else:
        assert [json.loads(line)["line"].encode() for line in printed] == wanted
    assert [line.encode() for line in seen] == wanted
    assert [line.encode() for line in child.tail(40)] == wanted[-40:]


@pytest.fixture
def quiet() -> Iterator[tuple[Reader, Output]]:
    reader = Reader()
    reader.start()
    yield reader, Output(["a"], stdout=reader.write_end)


def test_an_unterminated_line_is_printed_at_the_end_and_when_idle(quiet: tuple[Reader, Output]) -> None:
    reader, output = quiet
    read_end, write_end = make_pipe()
    child = output.child("a", read_end)
    os.write(write_end, b"Continue? ")
    child.handle_read()
    assert not child.flush_idle(time.monotonic())
    assert child.flush_idle(time.monotonic() + 2)
    assert not child.flush_idle(time.monotonic() + 4)
    os.write(write_end, b"yes\nlast words")
    os.close(write_end)
    assert child.handle_read()
    assert not child.handle_read()
    os.close(read_end)
    output.close(time.monotonic() + 5)
    assert reader.all() == b"a      | Continue? \na      |+ yes\na      | last words\n"


def test_an_ended_childs_pipe_is_drained_though_a_descendant_holds_it(quiet: tuple[Reader, Output]) -> None:
    reader, output = quiet
    read_end, write_end = make_pipe()
    child = output.child("a", read_end)
    os.write(write_end, b"x\n" * 100_000)
    assert child.drain()  # nothing more to read, but not the end
    assert child.bytes == 200_000
    os.close(write_end)
    assert not child.drain()
    os.close(read_end)
    output.close(time.monotonic() + 5)
    assert same(reader.all(), b"a      | x\n" * 100_000)


def test_lines_are_parsed_only_while_wanted(quiet: tuple[Reader, Output]) -> None:
    reader, output = quiet
    read_end, write_end = make_pipe()
    seen: list[str] = []
    child = output.child("a", read_end, seen.extend)
    os.write(write_end, b"\x1b[31mone\x1b[0m\r\n\ntwo\xff\n")
    child.handle_read()
    child.parse = False
    os.write(write_end, b"three\n")
    child.handle_read()
    assert seen == ["one", "", "two\ufffd"]
    assert child.tail(2) == ["two\ufffd", "three"]
    for fd in (read_end, write_end):
        os.close(fd)
    output.close(time.monotonic() + 5)
    reader.all()


def test_the_tail_is_bounded(quiet: tuple[Reader, Output]) -> None:
    reader, output = quiet
    read_end, write_end = make_pipe()
    child = output.child("a", read_end)
    for i in range(3000):
        os.write(write_end, b"%d %s\n" % (i, b"x" * 500))
        child.handle_read()
    kept = child.tail(10_000)
    size = sum(map(len, kept)) + len(kept)
    assert 512 << 10 <= size < 513 << 10  # whole lines
    assert kept[-1].startswith("2999 x")
    for fd in (read_end, write_end):
        os.close(fd)
    output.close(time.monotonic() + 5)
    reader.all()


def test_logs_that_cannot_be_written_are_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWriteError, match="GLM47_LOG_DIR") as error:
        Output(["a"], log_dir=str(tmp_path / "file" / "logs"))
    assert error.value.exit_code == ExitCode.CANTCREAT
    assert "\n" not in str(error.value)


def test_our_own_messages_of_several_lines_keep_their_name(quiet: tuple[Reader, Output]) -> None:
    reader, output = quiet
    output.say("one\ntwo")
    output.close(time.monotonic() + 5)
    assert reader.all() == b"runner | one\nrunner | two\n"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_our_own_lines_have_their_time(log_format: str, tmp_path: Path) -> None:
    """In a job, where nobody else gives them one; the children's have their own."""
    reader = Reader()
    reader.start()
    output = Output(
        ["decode"], log_dir=str(tmp_path), stdout=reader.write_end, log_format=log_format, dated=True,
        clock=lambda: 1764439200.5,
    )  # fmt: skip
    with spawned("print('loading')") as (read_end, _):
        forward([output.child("decode", read_end)])
    output.say("stopping: asked\nby somebody")
    assert output.close(time.monotonic() + 5)
    when = "2025-11-29T18:00:00.500Z"
    own = [f"{when} runner | stopping: asked", f"{when} runner | by somebody"]
    lines = reader.all().decode().splitlines()
    if log_format == "text":
        assert lines == ["decode | loading", *own]
        assert (tmp_path / "runner.log").read_text().splitlines() == own
        assert [_split(line) for line in own] == [
            ("runner", when, "stopping: asked"), ("runner", when, "by somebody"),
        ]  # fmt: skip
    else:
        assert [json.loads(line)["ts"] for line in lines] == [when] * 3
