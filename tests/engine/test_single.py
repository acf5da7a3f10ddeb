"""ROLE=single: one engine and its frontend."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.stacks import Stack
from tests.engine.streams import Stream
from tests.support.cpu_engine import greedy
from tests.support.cpu_engine.model import WORDS

LONG = 1000
"""Tokens of an answer that takes 7 s on two free cores."""


@pytest.fixture(scope="module")
def single(release: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("single") / "run"
    with Stack(directory, model, "single", release=release, GLM47_STOP_TIMEOUT="120") as stack:
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


def test_a_stop_answers_what_is_under_way_in_full(single: Stack) -> None:
    """After earlier requests, when SGLang 0.5.6 has its own handler of TERM.

    The last test here: it takes the engine away.
    """
    request = Stream(single.url, LONG).under_way()
    single.runner.signal(signal.SIGTERM)
    single.runner.wait_for("stopping: asked")
    assert request.is_alive(), "over before the stop began: too short to show anything"
    assert single.runner.wait(150) == 0, single.runner.text()
    assert request.ended() == ""
