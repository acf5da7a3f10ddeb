"""Prefill, decode, frontend and servers in one container, as `docker run` on one machine starts them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.stacks import Stack
from tests.support.cpu_engine import greedy

ROLE = "etcd,nats,prefill,decode,frontend"


@pytest.fixture(scope="module")
def pair(release: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """No argument but those of the CPU: what is bound and announced is the runner's choice."""
    with Stack(tmp_path_factory.mktemp("pair") / "run", model, ROLE, release=release, gpus=2) as stack:
        yield stack.ready()


def test_the_answers_are_right(pair: Stack, asked: list[str], right: list[str]) -> None:
    """Decode goes on from the KV cache that prefill sent."""
    assert greedy(pair.url, asked) == right


def test_the_answers_are_right_side_by_side(pair: Stack, asked: list[str], right: list[str]) -> None:
    assert greedy(pair.url, asked * 3, at_once=4) == right * 3


def test_it_stops_with_0(pair: Stack) -> None:
    """The last test here: it takes the engines away."""
    pair.runner.signal(signal.SIGTERM)
    assert pair.runner.wait(90) == 0, pair.runner.text()
