"""Full disks, kills and many processes at once."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from entrypoint.errors import CannotWriteError
from tests.node.model.files import SHARDS, prepare, snapshot


def test_a_full_disk_leaves_the_old_view(source: Path, view: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(source, view)
    before = snapshot(view)
    with (source / "generation_config.json").open("w") as file:
        json.dump({"long": "x" * 10_000}, file)

    def limited() -> None:
        # A limit on the size of files stands for a full disk: the write fails half way.
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        with pytest.raises(CannotWriteError, match="File too large"):
            prepare(source, view)

    assert in_child(limited) == 0
    assert {k: v[0] for k, v in snapshot(view).items() if k != "generation_config.json"} == {
        k: v[0] for k, v in before.items() if k != "generation_config.json"
    }
    assert "long" not in (view / "generation_config.json").read_text()
    assert {p.name for p in view.parent.iterdir()} == {"glm-4.7", ".glm-4.7.lock"}


def in_child(work: Any) -> int:
    """The exit code of a forked child that does `work`."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_killed_at_any_instant_it_leaves_the_old_view_or_the_new(source: Path, view: Path) -> None:
    prepare(source, view, 0)
    names = {p.name for p in source.iterdir()}
    chance = random.Random(47)
    seen: set[int] = set()
    rounds = 0
    # On a busy machine a child may be killed before it did anything: then more rounds are needed.
    while rounds < 150 or not ({1, 2} <= seen or rounds == 3000):
        rounds += 1
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(write, b"x")
            while True:
                prepare(source, view, 1)
                prepare(source, view, 2)
        os.read(read, 1)
        os.close(read)
        os.close(write)
        time.sleep(chance.uniform(0.0005, 0.006))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert {p.name for p in view.iterdir()} == names
        seen.add(json.loads((view / "generation_config.json").read_text())["bos_token_id"])
        assert all((view / name).readlink() == source / name for name in SHARDS)
    assert {1, 2} <= seen
    prepare(source, view, 3)
    assert {p.name for p in view.parent.iterdir()} == {"glm-4.7", ".glm-4.7.lock"}


def _prepare_many(source: Path, view: Path, start: Any, count: int, results: Any) -> None:
    start.wait(10)
    try:
        results.put(sum(prepare(source, view, n % 2) for n in range(count)))
    except BaseException as error:
        results.put(error)


def _changes(source: Path, view: Path, processes: int, count: int) -> list[Any]:
    """How often each of so many processes changed the view that all make, each `count` times, at once."""
    context = multiprocessing.get_context("fork")
    start, results = context.Event(), context.Queue()
    each = (source, view, start, count, results)
    workers = [context.Process(target=_prepare_many, args=each) for _ in range(processes)]
    for worker in workers:
        worker.start()
    start.set()
    changed = [results.get(timeout=30) for _ in workers]
    for worker in workers:
        worker.join(10)
    return changed


def test_many_processes_at_once(source: Path, view: Path) -> None:
    changed = _changes(source, view, 6, 40)
    assert all(isinstance(n, int) for n in changed), changed
    # Every process saw 40 alternating states, so somebody made each of them.
    assert sum(changed) >= 40
    assert {p.name for p in view.parent.iterdir()} == {"glm-4.7", ".glm-4.7.lock"}
    assert json.loads((view / "generation_config.json").read_text())["bos_token_id"] in (0, 1)


def test_one_start_of_many_containers_makes_one_view(source: Path, view: Path) -> None:
    assert sorted(_changes(source, view, 8, 1)) == [0] * 7 + [1]
