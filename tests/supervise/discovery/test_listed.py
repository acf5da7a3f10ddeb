"""A worker that was on the list and is not any more, told from one of which nothing is known."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from entrypoint.plan.types import Withdrawal
from entrypoint.supervise.discovery import listed
from entrypoint.supervise.discovery.listed import AGAIN, EVERY, SETTLED, Listed
from entrypoint.supervise.discovery.registry import Entry, RegistryError

PLACE = Withdrawal("etcd", "http://etcd:2379")


class World:
    """An etcd and a clock."""

    def __init__(self) -> None:
        self.now, self.looks = 0.0, 0
        self.entries: list[Entry] | None = []
        """None: it does not answer."""

    def instances(self) -> list[Entry]:
        self.looks += 1
        if self.entries is None:
            raise RegistryError("no connection")
        return self.entries

    def monotonic(self) -> float:
        return self.now

    @contextmanager
    def open_registry(self, place: Withdrawal, environ: Mapping[str, str]) -> Iterator[World]:
        assert place is PLACE
        yield self


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(listed, "open_registry", made.open_registry)
    monkeypatch.setattr(listed, "time", made)
    return made


@pytest.fixture
def own() -> Iterator[Entry]:
    """What this process serves."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        value = {"transport": {"tcp": f"127.0.0.1:{port}/1/generate"}}
        yield Entry("v1/instances/dynamo/backend/generate/1", json.dumps(value))


OTHER = Entry("v1/instances/dynamo/backend/generate/2", json.dumps({"transport": {"tcp": "127.0.0.1:1/2"}}))


def looks(world: World, worker: Listed, *lists: list[Entry] | None) -> list[bool]:
    """Whether it is missed after each of these lists, long after the one before."""
    found = []
    for entries in lists:
        world.entries, world.now = entries, world.now + EVERY
        found.append(worker.fault() is not None)
    return found


def test_one_that_was_listed_is_missed_until_it_is_back(world: World, own: Entry) -> None:
    worker = Listed(PLACE, {}, os.getpid())
    assert looks(world, worker, [own, OTHER], [OTHER], [], [own], [OTHER]) == [False, True, True, False, True]


def test_one_that_was_never_listed_is_not_missed(world: World) -> None:
    """Of another release, which lists its workers elsewhere or by names that are not known here."""
    assert looks(world, Listed(PLACE, {}, os.getpid()), [], [OTHER], []) == [False, False, False]


def test_a_list_that_cannot_be_asked_says_nothing(world: World, own: Entry) -> None:
    worker = Listed(PLACE, {}, os.getpid())
    assert looks(world, worker, None, [own], None, [OTHER], None) == [False, False, False, True, False]


def test_a_process_that_is_gone_is_not_missed(world: World, own: Entry) -> None:
    """Others see its end."""
    worker = Listed(PLACE, {}, 2**22 + 1)
    assert looks(world, worker, [own], [OTHER]) == [False, False]


def test_it_looks_seldom_while_all_is_well_and_often_while_it_is_missing(world: World, own: Entry) -> None:
    worker = Listed(PLACE, {}, os.getpid())
    world.entries = [own]
    for second in range(61):
        world.now = float(second)
        worker.fault()
    assert world.looks == 1 + 60 // EVERY
    looks(world, worker, [OTHER])
    before = world.looks
    for second in range(1, 21):
        world.now += 1.0
        assert worker.fault() is not None, second
    assert world.looks == before + 20 // AGAIN


def test_one_that_is_listed_a_moment_after_it_is_ready_is_missed_too(world: World, own: Entry) -> None:
    worker = Listed(PLACE, {}, os.getpid())
    assert worker.fault() is None
    world.entries, world.now = [own], AGAIN
    assert worker.fault() is None
    assert looks(world, worker, [OTHER]) == [True]


def test_one_that_is_never_listed_is_looked_for_seldom_in_the_end(world: World) -> None:
    worker = Listed(PLACE, {}, os.getpid())
    for second in range(91):
        world.now = float(second)
        worker.fault()
    assert world.looks <= SETTLED / AGAIN + 60 / EVERY + 2


def test_what_is_missed_says_where_and_what_to_do(world: World, own: Entry) -> None:
    worker = Listed(PLACE, {}, os.getpid())
    looks(world, worker, [own], [])
    why = worker.fault()
    assert why is not None and "the list in http://etcd:2379" in why and why.endswith("start it again")
