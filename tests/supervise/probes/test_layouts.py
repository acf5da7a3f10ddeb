"""A frontend whose prefill and decode workers do not fit together. The runners here are stand-ins."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import httpx
import pytest

from entrypoint.plan.types import FrontendProbe, KvLayout
from entrypoint.supervise.lifecycle.director import Director
from entrypoint.supervise.probes.asking import View
from entrypoint.supervise.probes.frontend import FrontendHealth
from entrypoint.supervise.probes.layouts import TRIES, Layouts
from entrypoint.supervise.status import report
from tests.plan.deployments import Container, build

PREFILL, DECODE = "10.0.0.1", "10.0.0.2"
VIEW = View(
    {"prefill": frozenset({1}), "backend": frozenset({2})},
    True,
    {"prefill": (PREFILL,), "backend": (DECODE,)},
)
PROBE = FrontendProbe("http://127.0.0.1:1", "glm-4.7", 1, 1, workers_port=9480, layouts=True)


def layout(role: str, tp: int, **more: Any) -> dict[str, Any]:
    made = KvLayout(role, tp, 1, 8, "nixl", "fp8_e4m3", None, "0.5.6.post2")
    return {**dataclasses.asdict(made), **more}


class Runners:
    """Answers for the runners at `told`; counts what it is asked."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.told, self.asked = told, 0

    def client(self) -> httpx.Client:
        def answer(request: httpx.Request) -> httpx.Response:
            assert (request.url.port, request.url.path) == (9480, "/status")
            self.asked += 1
            found = self.told.get(request.url.host)
            if found is None:
                raise httpx.ConnectError("refused")
            return httpx.Response(200, json=found)

        return httpx.Client(transport=httpx.MockTransport(answer))


def unfit(prefill: Any, decode: Any, probe: FrontendProbe = PROBE, view: View = VIEW) -> str | None:
    return Layouts(probe, Runners({PREFILL: prefill, DECODE: decode}).client).unfit(view)


def told(*layouts: dict[str, Any]) -> dict[str, Any]:
    return {"state": "ready", "layouts": list(layouts)}


def test_a_pair_that_was_started_apart_is_named() -> None:
    why = str(unfit(told(layout("prefill", 16)), told(layout("decode", 8))))
    assert why.startswith(
        "the prefill worker at 10.0.0.1 and the decode worker at 10.0.0.2 do not fit together: "
    )
    assert why.endswith(
        "attention-TP 16 and 8, sglang 0.5.6.post2, nixl, 8 KV heads: "
        "KV heads land in wrong places: wrong answers (sglang 19086)"
    )


@pytest.mark.parametrize(
    ("decode", "words"),
    [
        (layout("decode", 8, kv_cache_dtype="auto"), "their KV cache dtypes differ: fp8_e4m3 and auto"),
        (layout("decode", 8, page_size=64), "their page sizes differ: unset and 64"),
        (layout("decode", 8, sglang="0.5.14"), "their sglang releases differ: 0.5.6.post2 and 0.5.14"),
        (layout("decode", 8, pp=2), "pipeline parallelism has not been measured"),
    ],
)
def test_other_things_that_must_be_the_same(decode: dict[str, Any], words: str) -> None:
    assert words in str(unfit(told(layout("prefill", 8)), told(decode)))


@pytest.mark.parametrize(
    ("prefill", "decode"),
    [
        (told(layout("prefill", 8)), told(layout("decode", 8))),
        # One runner has both roles, or a field that ours does not know.
        (told(layout("decode", 2), layout("prefill", 8)), told(layout("decode", 8, later="new"))),
        # Nothing is known of one side: no runner, an older one, another server on that port.
        (told(layout("prefill", 16)), None),
        ({"state": "ready"}, told(layout("decode", 8))),
        ({"layouts": [{"role": "prefill"}]}, told(layout("decode", 8))),
        ("text", told(layout("decode", 8))),
    ],
)
def test_pairs_that_fit_or_are_not_known(prefill: Any, decode: Any) -> None:
    assert unfit(prefill, decode) is None


def test_a_person_may_insist() -> None:
    probe = dataclasses.replace(PROBE, layouts=False)
    assert unfit(told(layout("prefill", 16)), told(layout("decode", 8)), probe) is None


def test_runners_are_asked_once_per_set_of_workers() -> None:
    runners = Runners({PREFILL: told(layout("prefill", 8)), DECODE: told(layout("decode", 8))})
    layouts = Layouts(PROBE, runners.client)
    for _ in range(5):
        assert layouts.unfit(VIEW) is None
    assert runners.asked == 2
    # The decode worker was replaced by one of another layout, at the same address.
    runners.told[DECODE] = told(layout("decode", 4))
    assert layouts.unfit(dataclasses.replace(VIEW, instances={**VIEW.instances, "backend": frozenset({3})}))
    assert runners.asked == 4


def test_silent_runners_are_not_asked_for_ever() -> None:
    runners = Runners({})
    layouts = Layouts(PROBE, runners.client)
    for _ in range(3 * TRIES):
        assert layouts.unfit(VIEW) is None
    assert runners.asked == 2 * TRIES


def test_the_frontend_is_not_ready_and_sends_no_request() -> None:
    runners = Runners({PREFILL: told(layout("prefill", 16)), DECODE: told(layout("decode", 8))})
    probe = dataclasses.replace(PROBE, warmup=True)
    ready, why, faulty = FrontendHealth(probe, runners.client, lambda: None)(VIEW)
    assert (ready, faulty) == (False, False)
    assert "do not fit together: attention-TP 16 and 8" in why
    # Only the runners were asked: a chat completion would have gone to the frontend's own address.
    assert runners.asked == 2


def test_what_a_runner_tells_is_what_a_frontend_reads() -> None:
    plan = build(Container({"role": "decode", "head_address": "node1", "tp": 4}))
    status = json.loads(json.dumps(report.status(Director(plan, 0.0), 1.0, {}, {})))
    why = str(unfit(told(layout("prefill", 16)), status))
    assert "attention-TP 16 and 4" in why
    frontend = build(Container({"role": "frontend", "head_address": "node1", "prefill_workers": 1}))
    probe = frontend.process("frontend").ready
    assert isinstance(probe, FrontendProbe)
    assert (probe.layouts, probe.workers_port) == (True, frontend.health.number)
