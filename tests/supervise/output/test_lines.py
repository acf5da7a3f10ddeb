"""Splitting and formatting: any chunking of any stream gives the same lines."""

from __future__ import annotations

import itertools
import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from entrypoint.supervise.output.lines import Block, Formatter, LineSplitter, strip_escapes

STREAM = st.lists(
    st.sampled_from(
        [b"\n", b"\r", b"\r\n", b"\r\r\n", b"a", b"bar 3%", "é█".encode(), b"\x1b[2m", b"\xff", b" "]
    )
).map(b"".join)


def reference(stream: bytes) -> list[bytes]:
    """The rule, one line at a time: a bare return's empty segment is no line, every other is."""
    found = re.findall(rb"([^\r\n]*)(\r\n|\r|\n)", stream)
    lines = [text for text, end in found if text or end != b"\r"]
    rest = re.split(rb"[\r\n]", stream)[-1]
    return lines + ([rest] if rest else [])


def chunks_of(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [stream[a:b] for a, b in itertools.pairwise(edges)]


def split(stream: bytes, cuts: list[int], max_line: int = 1 << 20) -> list[Block]:
    splitter = LineSplitter(max_line)
    blocks = [block for chunk in chunks_of(stream, cuts) for block in splitter.feed(chunk)]
    return blocks + splitter.finish()


def lines_of(blocks: list[Block]) -> list[bytes]:
    """The lines, with pieces of one line joined again."""
    lines: list[bytes] = []
    for block in blocks:
        assert block.data.endswith(b"\n")
        parts = block.data[:-1].split(b"\n")
        if block.continues or block.unfinished:
            assert len(parts) == 1
        if block.continues:
            lines[-1] += parts[0]
        else:
            lines += parts
    return lines


@given(STREAM, st.lists(st.integers(0, 500)))
@example(b"a\r\n\r\r\n\n\rb", [1, 2, 3, 4, 5, 6, 7])
@example(b"\r", [])
def test_any_chunking_gives_the_lines_of_the_rule(stream: bytes, cuts: list[int]) -> None:
    blocks = split(stream, cuts)
    assert lines_of(blocks) == reference(stream)
    assert not any(block.continues or block.unfinished for block in blocks)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300)))
def test_any_bytes_in_any_chunks(stream: bytes, cuts: list[int]) -> None:
    assert lines_of(split(stream, cuts)) == reference(stream)


@given(STREAM, st.lists(st.integers(0, 500)), st.integers(4, 9))
def test_long_lines_come_in_pieces_that_join_to_the_line(stream: bytes, cuts: list[int], limit: int) -> None:
    blocks = split(stream, cuts, limit)
    assert lines_of(blocks) == reference(stream)
    assert blocks_as_lines(blocks) == blocks_as_lines(split(stream, [], limit))
    assert all(len(line) <= limit for block in blocks for line in block.data.split(b"\n"))


def blocks_as_lines(blocks: list[Block]) -> list[tuple[bytes, bool, bool]]:
    return [
        (line, block.continues, block.unfinished) for block in blocks for line in block.data[:-1].split(b"\n")
    ]


@given(STREAM, st.lists(st.integers(0, 500)), st.integers(4, 9))
def test_flushing_at_any_time_loses_and_joins_nothing(stream: bytes, cuts: list[int], limit: int) -> None:
    splitter = LineSplitter(limit)
    blocks: list[Block] = []
    for chunk in chunks_of(stream, cuts):
        blocks += splitter.feed(chunk)
        blocks += splitter.flush_idle()
    assert lines_of(blocks + splitter.finish()) == reference(stream)


@given(st.text(alphabet="é█漢😀", min_size=1), st.integers(4, 11), st.lists(st.integers(0, 200)))
def test_pieces_are_whole_characters(text: str, limit: int, cuts: list[int]) -> None:
    pieces = [block.data[:-1].decode() for block in split(text.encode(), cuts, limit)]
    assert "".join(pieces) == text


def test_a_bar_is_out_as_soon_as_it_is_ended() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"\r  3%|# | 1/36") == []
    assert splitter.feed(b"\r") == [Block(b"  3%|# | 1/36\n")]
    assert splitter.feed(b"  6%|# | 2/36") == []
    assert splitter.pending == 13
    assert splitter.flush_idle() == [Block(b"  6%|# | 2/36\n", unfinished=True)]
    assert splitter.feed(b"\rnext\n") == [Block(b"next\n")]


def test_an_endless_line_is_held_back_only_up_to_the_limit() -> None:
    splitter = LineSplitter(max_line=1000)
    printed = 0
    for _ in range(100):
        printed += sum(len(block.data) - 1 for block in splitter.feed(b"x" * 999))
        assert splitter.pending <= 1000
    assert printed + splitter.pending == 99_900


def test_text_lines_carry_an_aligned_name() -> None:
    formatter = Formatter(width=8)
    assert (
        formatter.format("etcd", Block(b"one\n\ntwo\n"), 0)
        == b"etcd     | one\netcd     | \netcd     | two\n"
    )
    assert formatter.format("etcd", Block(b"rest\n", continues=True), 0) == b"etcd     |+ rest\n"


def test_json_lines_are_objects() -> None:
    block = Block('a "quoted" \\ line\n\x1b[2mé\x1b[0m\xff\t\n'.encode().replace(b"\xc3\xbf", b"\xff"))
    out = Formatter("json").format("decode", block, 1_700_000_000.123456)
    assert [json.loads(line) for line in out.splitlines()] == [
        {"ts": "2023-11-14T22:13:20.123Z", "process": "decode", "line": 'a "quoted" \\ line'},
        {"ts": "2023-11-14T22:13:20.123Z", "process": "decode", "line": "é\ufffd\t"},
    ]


def test_json_marks_unfinished_pieces() -> None:
    formatter = Formatter("json")
    assert json.loads(formatter.format("a", Block(b"x\n", unfinished=True), 0))["partial"] is True
    assert "partial" not in json.loads(formatter.format("a", Block(b"x\n", continues=True), 0))


@given(st.binary().map(lambda data: data.replace(b"\r", b"") + b"\n"), st.sampled_from(["text", "json"]))
def test_every_line_is_one_printed_line(data: bytes, log_format: str) -> None:
    printed = Formatter(log_format).format("x", Block(data), 0)
    assert printed.count(b"\n") == data.count(b"\n")
    assert printed.endswith(b"\n")


ESCAPED = b"\x1b[2m2026\x1b[0m \x1b[1;31mERROR\x1b[0m \x1b]0;title\x07\x1b[A\x1b[2Kx\x1b(B\n"


def test_escapes_go_where_there_is_no_terminal() -> None:
    assert strip_escapes(ESCAPED) == b"2026 ERROR x\n"
    assert Formatter().format("a", Block(ESCAPED), 0) == b"a | 2026 ERROR x\n"


def test_a_terminal_keeps_colours_only_and_each_line_ends_its_own() -> None:
    printed = Formatter(colours=True).format("a", Block(ESCAPED + b"\x1b[31mred\nplain\n"), 0)
    assert printed == (
        b"a | \x1b[2m2026\x1b[0m \x1b[1;31mERROR\x1b[0m x\x1b[0m\na | \x1b[31mred\x1b[0m\na | plain\n"
    )


def test_unknown_format_and_tiny_limit_are_refused() -> None:
    with pytest.raises(ValueError, match="xml"):
        Formatter("xml")
    with pytest.raises(ValueError, match="at least 4"):
        LineSplitter(3)


PIECES = st.lists(
    st.sampled_from(
        [
            b"\x1b",
            b"[",
            b"]",
            b"31",
            b";",
            b"m",
            b"2J",
            b"H",
            b"x",
            b"\x07",
            b"\x1b\\",
            b"0",
            b"(",
            b"B",
            b"?25l",
        ]
    ),
    max_size=14,
)


@example([b"\x1b", b"[", b"\x1b", b"[", b"31", b"m", b"2J"])
@example([b"\x1b", b"\x1b", b"[", b"m", b"[", b"2J"])
@given(PIECES)
def test_no_escape_is_left_however_they_are_nested(pieces: list[bytes]) -> None:
    line = b"".join(pieces) + b"\n"
    assert b"\x1b" not in strip_escapes(line)
    for log_format in ("text", "json"):
        assert b"\x1b" not in Formatter(log_format).format("a", Block(line), 0.0)
    shown = Formatter(colours=True).format("a", Block(line), 0.0)
    assert b"\x1b" not in re.sub(rb"\x1b\[[0-?]*[ -/]*m", b"", shown), "a terminal gets colours only"


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("colours", [False, True])
@pytest.mark.parametrize("dated", ["", "engine"])
@pytest.mark.parametrize(
    "block",
    [
        Block(b"one\n"),
        Block(b"one\n\n\ntwo\n" * 1000),
        Block(b"\x1b[31mred\x1b[0m\nplain\n"),
        Block(b"the rest\n", continues=True),
        Block(b"a piece\n", unfinished=True),
        Block(b"\n"),
    ],
)
def test_lines_are_counted_by_what_is_printed(
    log_format: str, colours: bool, dated: str, block: Block
) -> None:
    formatter = Formatter(log_format, width=2, colours=colours, dated=dated)
    printed = formatter.format("engine", block, 0.0)
    assert formatter.lines_of("engine", block.data, printed) == block.data.count(b"\n")
