"""Ready means: tokens came, from every pair of workers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.supervise.probes.warming import AT_ONCE, TOKENS, Pair, Warmth, body, lacks_tokens, served_by
from tests.supervise.probes.fake_frontend import tokens

A, B = Pair(1, 8), Pair(1, 9)


def message(**fields: Any) -> dict[str, Any]:
    return tokens(choices=[{"index": 0, "message": {"role": "assistant", **fields}}], usage=None)


@pytest.mark.parametrize(
    "answer",
    [
        tokens(),
        tokens(""),  # the server's count: a token may have no text
        tokens("", usage={"completion_tokens": TOKENS}),
        tokens(
            choices=[{"finish_reason": "stop", "message": {"content": "Hi"}}], usage={"completion_tokens": 1}
        ),
        message(content="Hi"),
        message(content=None, reasoning_content="The user"),
        message(reasoning="The user"),
        message(content="", tool_calls=[{"function": {"name": "f"}}]),
    ],
)
def test_tokens(answer: Any) -> None:
    assert lacks_tokens(answer) is None


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({}, "has no choices"),
        ([], "not a JSON object"),
        ("", "not a JSON object"),
        (None, "not a JSON object"),
        (tokens(choices=[]), "has no choices"),
        (tokens(choices=None), "has no choices"),
        (tokens(choices=["Hi"]), "has no choices"),
        (tokens(usage={"completion_tokens": 0}), "completion_tokens is 0"),
        (tokens("Hi", usage={"prompt_tokens": 5, "completion_tokens": 0}), "completion_tokens is 0"),
        (tokens("", usage={"completion_tokens": None}), "the message is empty"),
        (tokens("", usage={"completion_tokens": True}), "the message is empty"),
        (tokens("", usage={}), "the message is empty"),
        (message(content=""), "the message is empty"),
        (message(content=None, reasoning_content=None, tool_calls=[]), "the message is empty"),
        (tokens(choices=[{"index": 0}], usage=None), "the message is empty"),
        (tokens(choices=[{"index": 0, "message": None}], usage=None), "the message is empty"),
        (tokens(choices=[{"finish_reason": "abort"}]), "finish_reason is abort"),
        (tokens(choices=[{"finish_reason": "error"}]), "finish_reason is error"),
        ({"error": {"message": "no prefill"}}, "no prefill"),
        (tokens(error="broken"), "broken"),
        (tokens("!" * TOKENS), "again and again"),
        (tokens("a\0"), "NUL"),
        (tokens("<|user|>"), "special tokens"),
        (tokens("Hi", usage={"completion_tokens": 1}), "1 tokens came of the 8 asked for"),
    ],
)
def test_no_tokens(answer: Any, why: str) -> None:
    assert why in (lacks_tokens(answer) or "")


def test_who_answered_is_read_where_it_is_told() -> None:
    told = {"nvext": {"worker_id": {"prefill_worker_id": 1, "decode_worker_id": 9}}}
    assert served_by(told, A) == B
    assert served_by(told, Pair(None, 8)) == Pair(None, 9)
    untold: dict[str, Any]
    for untold in (
        {},
        {"nvext": None},
        {"nvext": {"worker_id": {}}},
        {"nvext": {"worker_id": {"decode_worker_id": 9}}},
    ):
        assert served_by(untold, A) is None


def test_the_request_names_the_pair() -> None:
    assert body("m", A, "x")["nvext"] == {
        "extra_fields": ["worker_id"], "prefill_worker_id": 1, "decode_worker_id": 8,
    }  # fmt: skip
    assert "prefill_worker_id" not in body("m", Pair(None, 8), "x")["nvext"]


def test_a_pair_is_asked_once_and_again_only_after_a_pause() -> None:
    w = Warmth(patience=15)
    assert w.due([A], 0.0) == [A] and w.began(A, 0.0) == 15
    assert w.due([A], 1.0) == []  # in flight
    w.failed(A, "no tokens", 1.0)
    assert w.due([A], 1.2) == [] and w.due([A], 1.5) == [A]
    assert w.began(A, 1.5) == 30 and "no tokens" in w.describe(1)
    w.failed(A, "no tokens", 2.0)
    assert w.due([A], 2.9) == [] and w.due([A], 3.0) == [A]
    w.began(A, 3.0)
    assert w.answered(A, None, 10.0) == (A, 10.0)
    assert w.due([A], 99.0) == [] and w.cold([A]) == []


def test_what_another_worker_answered_counts_for_that_one() -> None:
    w = Warmth(patience=15)
    assert w.due([A, B], 0.0) == [A, B]
    w.began(A, 0.0)
    assert w.answered(A, B, 1.0) == (B, 1.0)
    assert w.due([A, B], 1.0) == [A] and w.cold([A, B]) == [A]


def test_idle_workers_come_first() -> None:
    w = Warmth(patience=15)
    first = w.due([Pair(p, b) for p in (1, 2, 3) for b in (7, 8, 9)], 0.0)
    assert len(first) == AT_ONCE
    assert {p for p, _ in first[:3]} == {1, 2, 3} and {b for _, b in first[:3]} == {7, 8, 9}


def test_a_new_worker_settles_first_and_a_lost_one_is_forgotten() -> None:
    w = Warmth(patience=5, settle=1.0)
    assert w.due([A], 0.0) == [] and w.due([A], 1.0) == [A]
    w.began(A, 1.0)
    assert w.answered(A, None, 1.5) == (A, 0.5)
    assert w.due([A, B], 2.0) == [] and w.due([A, B], 3.0) == [B]
    assert w.due([B], 3.0) == [B] and A not in w.met
    assert w.due([A, B], 4.5) == [B]  # the same id again is a new worker


def test_a_hopeless_pair_does_not_hold_a_start_up_while_others_work() -> None:
    w = Warmth(patience=5)
    w.due([A, B], 0.0)
    w.answered(A, None, 1.0)
    for _ in range(3):
        assert w.cold([A, B]) == [B]
        w.failed(B, "broken", 1.0)
    assert w.cold([A, B]) == []
    alone = Warmth(patience=5)
    for _ in range(9):
        alone.failed(B, "broken", 1.0)
    assert alone.cold([B]) == [B]


@given(st.integers(1, 6), st.integers(1, 6), st.booleans(), st.randoms())
def test_every_pair_is_met_whoever_answers(prefill: int, backend: int, told: bool, random: Any) -> None:
    """With a router that chooses decode workers itself, and one that obeys; never too many at once."""
    live = [Pair(p, b) for p in range(prefill) for b in range(100, 100 + backend)]
    w, flying, now = Warmth(patience=5), list[Pair](), 0.0
    while w.cold(live):
        for pair in w.due(live, now):
            w.began(pair, now)
            flying.append(pair)
        assert 0 < len(flying) <= AT_ONCE
        pair = flying.pop(random.randrange(len(flying)))
        served = Pair(pair.prefill, 100 + random.randrange(backend)) if told else None
        w.answered(pair, served, now)
        now += 0.1
    assert w.sent <= len(live) * 4
