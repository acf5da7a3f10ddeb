"""Two workers and a frontend: one leaves, the other dies."""

from __future__ import annotations

import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.engine.stacks import Stack
from tests.engine.stops import DRAINS, LONG, ended
from tests.engine.streams import Load, Stream
from tests.support.runner import until
from tests.support.stack import free_ports

pytestmark = pytest.mark.engine_more


class Two:
    """Two aggregated workers, and a frontend that has both."""

    def __init__(self, stack: ExitStack, store: str, release: str, model: Path, directory: Path) -> None:
        ports = free_ports()
        same = {name: ports[name] for name in ("GLM47_ETCD_PORT", "GLM47_NATS_PORT")} | DRAINS
        same |= {"GLM47_HEAD_ADDRESS": "127.0.0.1", "GLM47_DECODE_WORKERS": "2"}
        if store == "file":
            same |= {"GLM47_DISCOVERY": "file", "DYN_FILE_KV": str(directory / "store")}

        def start(name: str, role: str) -> Stack:
            return stack.enter_context(Stack(directory / name, model, role, release=release, **same))

        self.head = start("head", "frontend" if store == "file" else "etcd,frontend")
        self.workers = [start(name, "aggregated") for name in "ab"]
        for each in (*self.workers, self.head):
            each.ready()

    def listed(self) -> bool:
        with urllib.request.urlopen(f"{self.head.url}/v1/models", timeout=5) as answer:
            return b"glm-4.7" in answer.read()


@pytest.fixture(scope="module", params=["etcd", "file"])
def two(
    request: pytest.FixtureRequest, release: str, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Two]:
    with ExitStack() as stack:
        yield Two(stack, request.param, release, model, tmp_path_factory.mktemp("two"))


def test_one_of_two_workers_leaves_under_load_and_no_request_fails(two: Two) -> None:
    """Those under way end where they began; new ones go to the other."""
    first, url, load = two.workers[0].runner, two.head.url, Load(two.head.url)
    with load.going():
        long = [Stream(url, LONG, f" w{number:03} w007").under_way() for number in range(4)]
        began = time.monotonic()
        first.signal(signal.SIGTERM)
        first.wait_for("stopping: asked")
        assert any(each.is_alive() for each in long), "over before the stop began: too short"
        ended(first, 0, began)
        assert "aggregated is off the list" in first.text()
        begun = len(load.done)
        until(lambda: len(load.done) > begun + 4, "answers after it has left", 60)
    assert [each.ended() for each in long] == [""] * 4
    assert load.done == [""] * len(load.done)
    print(f"{len(load.done)} short and 4 long requests, none failed")


def test_the_other_one_is_killed_and_off_the_list_before_its_lease_ends(two: Two) -> None:
    """The last test with these two: it takes the second one away."""
    assert two.listed()
    second = two.workers[1].runner
    began = time.monotonic()
    os.kill(second.status_of("aggregated")["pid"], signal.SIGKILL)
    ended(second, 137, began)
    assert "aggregated is off the list" in second.text()
    until(lambda: not two.listed(), "off the frontend's list")
    print(f"off the list after {time.monotonic() - began:.1f} s")
    began = time.monotonic()
    two.head.runner.signal(signal.SIGTERM)
    ended(two.head.runner, 0, began)
