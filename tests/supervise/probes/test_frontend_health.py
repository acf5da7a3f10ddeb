"""A frontend's readiness, by the real prober, against a stand-in for the frontend."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from entrypoint.plan.types import FrontendProbe, StoreProbe
from entrypoint.supervise.probes.prober import Answer, Prober
from tests.supervise.probes.fake_frontend import Frontend, serving, tokens
from tests.support.runner import until


class Seen:
    """What the prober reports."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []

    @property
    def ready(self) -> bool:
        return bool(self.answers) and self.answers[-1].ready

    @property
    def why(self) -> str:
        return self.answers[-1].why if self.answers else ""

    @property
    def news(self) -> str:
        return "\n".join(line for answer in self.answers for line in answer.news)


@contextmanager
def watched(frontend: Frontend, **fields: Any) -> Iterator[Seen]:
    """The prober, asking `frontend`."""
    seen = Seen()
    wanted = {"backend": 1, "prefill": 0, "warmup": True, "patience": 5.0} | fields
    with serving(frontend):
        prober = Prober(seen.answers.append)
        prober.watch("frontend", FrontendProbe(frontend.url, frontend.model, **wanted))
        try:
            yield seen
        finally:
            prober.close()


def pinned(request: dict[str, Any]) -> tuple[Any, Any]:
    nvext = request["nvext"]
    return nvext.get("prefill_worker_id"), nvext.get("decode_worker_id")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((200, tokens("", usage={"completion_tokens": 0})), "completion_tokens is 0"),
        ((200, tokens(choices=[])), "has no choices"),
        ((200, {}), "has no choices"),
        ((200, "OK"), "has no choices"),
        ((500, {"message": "unknown variant `abort`"}), "500: .*abort"),
        (None, "within 0.2 s"),
    ],
)
@pytest.mark.parametrize("prefill", [0, 1])
def test_an_answer_without_tokens_is_none(answer: Any, why: str, prefill: int) -> None:
    import re

    frontend = Frontend({"backend": [1]} | ({"prefill": [7]} if prefill else {}), answer=lambda _: answer)
    with watched(frontend, prefill=prefill, patience=5.0 if answer else 0.2) as seen:
        until(lambda: len(frontend.asked) > 1, "a second request")
        assert not seen.ready
        assert re.search(why, seen.why), seen.why
        assert ("decode's log" in seen.why) == bool(prefill)
        frontend.answer = lambda _: (200, tokens())
        until(lambda: seen.ready, "ready")


@pytest.mark.parametrize(
    "message", ["Prefill router not yet activated", "bootstrap_info is required for disaggregated decode"]
)
def test_a_frontend_that_has_not_read_a_prefill_card_is_told_from_one_that_waits(message: str) -> None:
    """It never will: the runner starts it again, where it can have come to that (the file store)."""
    frontend = Frontend({"backend": [1], "prefill": [7]}, answer=lambda _: (500, {"message": message}))
    with watched(frontend, prefill=1) as seen:
        until(lambda: message in seen.why, "the first answer")
        assert seen.answers[-1].loading
        assert "decode's log" not in seen.why, "the address is not what is wrong"
        frontend.answer = lambda _: (200, tokens())
        until(lambda: seen.ready, "ready")


@pytest.mark.parametrize("registered", [0, 1])
def test_a_frontend_elsewhere_lacks_only_what_its_store_has(tmp_path: Path, registered: int) -> None:
    for kind in ("mdc", "instances"):
        for number in range(registered):
            key = tmp_path / "v1" / kind / f"dynamo%2Fbackend%2Fgenerate%2F{number}"
            key.parent.mkdir(parents=True, exist_ok=True)
            key.write_text("{}")
    frontend = Frontend({})
    with watched(frontend, store=StoreProbe(str(tmp_path), backend=1, prefill=0)) as seen:
        until(lambda: "0 of 1 backend" in seen.why, "a first answer")
        assert seen.answers[-1].loading == bool(registered)


@pytest.mark.parametrize("instances", [{}, {"prefill": [7]}, {"prefill": [7], "backend": [1]}])
def test_a_frontend_whose_store_is_read_whole_lacks_no_worker_that_is_there(
    instances: dict[str, list[int]],
) -> None:
    """Only a model that it does not list although every worker is there is its own fault (Dynamo 1.1)."""
    frontend = Frontend(instances, listed=False)
    with watched(frontend, prefill=1, lists_all=True) as seen:
        until(lambda: seen.answers, "a first answer")
        assert not seen.ready
        assert seen.answers[-1].loading == ("backend" in instances), seen.why


def test_an_error_that_comes_at_once_is_not_asked_for_again_and_again() -> None:
    frontend = Frontend(answer=lambda _: (500, "no"))
    with watched(frontend) as seen:
        until(lambda: len(frontend.asked) == 3, "three requests")
        time.sleep(1)
        assert len(frontend.asked) == 3  # the next one comes 2 s after the third
        assert not seen.ready


def test_every_pair_is_asked_before_ready() -> None:
    frontend = Frontend({"prefill": [1, 2], "backend": [8, 9]})
    with watched(frontend, prefill=2, backend=2) as seen:
        until(lambda: seen.ready, "ready")
        assert sorted(map(pinned, frontend.asked)) == [(1, 8), (1, 9), (2, 8), (2, 9)]
        assert seen.news.count("first tokens after") == 4


def test_the_only_worker_is_replaced() -> None:
    """Not ready from when nobody is there until the new one has answered."""
    gate = threading.Event()
    frontend = Frontend({"prefill": [1], "backend": [8]})
    with watched(frontend, prefill=1) as seen:
        until(lambda: seen.ready, "ready")
        frontend.answer = lambda request: (200, tokens()) if gate.wait(30) else None
        frontend.workers = {"backend": [8]}
        until(lambda: not seen.ready, "not ready")
        assert seen.why == "0 of 1 prefill instances registered"
        frontend.workers = {"prefill": [2], "backend": [8]}
        until(lambda: len(frontend.asked) == 2, "its request")
        assert pinned(frontend.asked[-1]) == (2, 8)
        time.sleep(0.5)
        assert not seen.ready and "not answered yet" in seen.why
        gate.set()
        until(lambda: seen.ready, "ready again")
        assert "a new prefill worker is listed (2)" in seen.news
        assert "prefill worker 2 and decode worker 8: first tokens after " in seen.news


def test_a_replaced_worker_does_not_take_the_api_away() -> None:
    """Others answer meanwhile, also while the new one gives no tokens."""
    frontend = Frontend({"backend": [8, 9]})
    with watched(frontend, backend=2) as seen:
        until(lambda: seen.ready, "ready")
        frontend.workers = {"backend": [9]}
        time.sleep(1)
        frontend.answer = lambda _: (200, tokens(choices=[]))
        frontend.workers = {"backend": [9, 10]}
        until(
            lambda: "aggregated worker 10: no answer to a request of ours" in seen.news, "its failure is said"
        )
        frontend.answer = lambda _: (200, tokens())
        until(lambda: "aggregated worker 10: first tokens after" in seen.news, "its answer")
        started = next(i for i, answer in enumerate(seen.answers) if answer.ready)
        assert all(answer.ready for answer in seen.answers[started:])
        assert len(frontend.asked) >= 4


def test_without_warm_up_nothing_is_asked() -> None:
    frontend = Frontend({"backend": [8]})
    with watched(frontend, warmup=False) as seen:
        until(lambda: seen.ready, "ready")
        assert frontend.asked == []
