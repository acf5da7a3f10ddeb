"""The flight recorder's pipes and files, by a double of the thread in torch that serves them.

What torch itself writes was read on GPUs: docs/gpu-run.md.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from entrypoint.supervise.watchdog import stacks
from entrypoint.supervise.watchdog.collectives import FILES, PIPES, WAIT, Collective, ask, last_of_each_group
from entrypoint.supervise.watchdog.stacks import Place

RANK = """
import os, sys
pipe, file, content = sys.argv[1:]
os.mkfifo(pipe)
reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
print("up", flush=True)
import select
select.select([reader], [], [])
os.read(reader, 99)
data = bytes.fromhex(content)
with open(file, "wb") as out:
    out.write(data[: len(data) // 2]); out.flush()
    out.write(data[len(data) // 2 :])
select.select([], [], [])
"""


def entry(number: int, state: str, name: str = "nccl:all_reduce", **fields: Any) -> dict[str, Any]:
    made = {"profiling_name": name, "collective_seq_id": number, "state": state, "is_p2p": False,
            "process_group": ("2", "tp:0"), "input_sizes": ((4, 8),)}  # fmt: skip
    return made | fields


def dump(*entries: dict[str, Any]) -> bytes:
    return pickle.dumps({"version": "2.10", "entries": [*entries]}, protocol=2)


@contextmanager
def ranks(directory: Path, contents: dict[int, bytes]) -> Iterator[dict[str, str]]:
    """Doubles of ranks that answer with `contents`: the variables that they have."""
    stem = f"{directory}/collectives-"
    children = []
    for rank, content in contents.items():
        command = [sys.executable, "-c", RANK, f"{stem}{rank}.pipe", f"{stem}{rank}", content.hex()]
        children.append(subprocess.Popen(command, stdout=subprocess.PIPE))
    try:
        for child in children:
            assert child.stdout is not None and child.stdout.readline() == b"up\n"
        yield {PIPES: stem, FILES[0]: stem, FILES[1]: stem}
    finally:
        for child in children:
            child.kill()
            child.wait()


def test_each_rank_says_the_last_collective_of_each_of_its_groups(tmp_path: Path) -> None:
    world = {"process_group": ("0", "default_pg")}
    first = dump(
        entry(1, "completed", "nccl:broadcast", **world), entry(4126, "completed"), entry(4127, "started")
    )
    second = dump(entry(4127, "scheduled"), entry(4126, "completed"))
    with ranks(tmp_path, {0: first, 11: second}) as environ:
        found, why = ask(environ)
    assert why == []
    assert sorted(map(str, found)) == [
        "all_reduce 4127 of group tp:0, scheduled",
        "all_reduce 4127 of group tp:0, started",
        "broadcast 1 of group default_pg, completed",
    ]
    assert {c.rank for c in found if c.waits} == {0, 11}


def test_who_does_not_answer_is_named_and_keeps_nobody(tmp_path: Path) -> None:
    with ranks(tmp_path, {0: dump(entry(7, "started")), 1: b"", 2: b"no pickle at all"}) as environ:
        os.mkfifo(tmp_path / "collectives-3.pipe")
        (tmp_path / "collectives-of-others.pipe").write_text("")
        began = time.monotonic()
        found, why = ask(environ, 1.0)
        assert time.monotonic() - began < WAIT + 5
    assert [str(c) for c in found] == ["all_reduce 7 of group tp:0, started"]
    assert sorted(why) == [
        "rank 1 does not tell its collectives",
        "rank 2 does not tell its collectives",
        "rank 3 cannot be asked for its collectives: No such device or address",
    ]


def test_an_old_file_is_no_answer(tmp_path: Path) -> None:
    old = tmp_path / "collectives-0"
    old.write_bytes(dump(entry(7, "started")))
    os.utime(old, (1, 1))
    with ranks(tmp_path, {0: b""}) as environ:
        assert ask(environ, 0.5) == ([], ["rank 0 does not tell its collectives"])


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("/tmp/it-was-run",)


def test_a_file_runs_nothing(tmp_path: Path) -> None:
    with ranks(tmp_path, {0: pickle.dumps({"entries": [Evil()]})}) as environ:
        assert ask(environ, 0.5)[0] == []
    assert not Path("/tmp/it-was-run").exists()


@pytest.mark.parametrize(
    "content",
    [None, [], {}, {"entries": None}, {"entries": [None]}, {"entries": [{}]}, {"entries": [entry(1, "x") | {
        "collective_seq_id": "many"}]}, {"entries": [entry(1, "x", is_p2p=True)]}],
)  # fmt: skip
def test_what_is_no_dump_says_nothing(content: Any) -> None:
    assert [*last_of_each_group(0, content)] == []


def test_groups_without_a_name_have_their_number() -> None:
    bare = {"entries": [entry(3, "started", process_group=("5", "undefined"))]}
    assert [*last_of_each_group(0, bare)] == [Collective(0, "5", "all_reduce", 3, "started")]


def test_without_pipes_nothing_is_asked(tmp_path: Path) -> None:
    assert ask({}) == ([], [])
    assert ask({PIPES: f"{tmp_path}/x", FILES[0]: f"{tmp_path}/x"}) == ([], [])


def test_a_rank_that_waits_is_told_with_the_number_of_its_collective() -> None:
    place = Place("sglang::scheduler_TP11", 7, "S", "futex", ("wait (c10d.py:1)",), "all_reduce")
    last = [
        Collective(11, "tp:0", "all_reduce", 4127, "started"),
        Collective(1, "x", "barrier", 1, "started"),
    ]
    numbered = stacks.with_collective(place, last)
    assert str(numbered).startswith("waits in all_reduce 4127 of group tp:0, started: wait")
    for other in (replace(place, title="sglang::scheduler_TP2"), replace(place, state="T"),
                  replace(place, title="sglang::detokenizer")):  # fmt: skip
        assert stacks.with_collective(other, last) == other
    over = [Collective(11, "tp:0", "all_reduce", 4127, "completed")]
    assert stacks.with_collective(place, over) == place
