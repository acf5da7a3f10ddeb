"""ROLE=single: one engine and its frontend."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.stacks import Stack
from tests.support.cpu_engine import greedy
from tests.support.cpu_engine.model import WORDS

pytestmark = pytest.mark.xdist_group("single")


@pytest.fixture(scope="module")
def single(release: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("single") / "run", model, "single", release=release) as stack:
        yield stack.ready()


def test_the_answers_are_right(single: Stack, asked: list[str], right: list[str]) -> None:
    """Word for word what transformers makes of the same model."""
    assert greedy(single.url, asked) == right


def test_the_answers_are_right_side_by_side(single: Stack, asked: list[str], right: list[str]) -> None:
    assert greedy(single.url, asked * 3, at_once=4) == right * 3


def test_an_answer_depends_on_the_first_word(single: Stack) -> None:
    """Else a wrong KV cache would not show, and these tests could not say no."""
    end = "".join(WORDS[:200])
    answers = greedy(single.url, [first + end for first in WORDS[300:305]])
    assert len(set(answers)) == 5


def test_it_stops_with_0(single: Stack) -> None:
    """Idle, after it has answered. The last test here: it takes the engine away."""
    single.runner.signal(signal.SIGTERM)
    assert single.runner.wait(60) == 0, single.runner.text()
