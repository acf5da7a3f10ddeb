"""How each worker is watched for a hang: the limits, and what it can be asked."""

from __future__ import annotations

import runpy
from dataclasses import replace
from typing import Any

import pytest

from entrypoint.plan.types import HangWatch
from tests.plan.deployments import CONTAINERS, build
from tests.support.stack import ENGINE


def watch(name: str, **settings: Any) -> HangWatch | None:
    container = CONTAINERS[name]
    plan = build(replace(container, settings={**container.settings, **settings}))
    (found,) = {process.hang for process in plan.processes if process.vital}
    return found


def test_0_and_0_turns_it_off() -> None:
    assert watch("decode", hang_unready=0, hang_timeout=0) is None


@pytest.mark.parametrize(("timeout", "planned"), [(40, 45.0), (0, 0.0)])
def test_a_leader_of_several_nodes_speaks_last(timeout: float, planned: float) -> None:
    """Its follower's runner sees more."""
    leader = watch("prefill-tp16-leader", hang_timeout=timeout)
    follower = watch("prefill-tp16-follower", hang_timeout=timeout)
    assert leader is not None and leader.timeout == planned and leader.metrics is not None
    assert follower is not None and follower.timeout == timeout and follower.metrics is None


def test_only_an_aggregated_worker_waits_for_nobody() -> None:
    judged = {name: watch(name) for name in ("aggregated", "decode", "prefill")}
    assert {name: w and w.waits_for_others for name, w in judged.items()} == {
        "aggregated": False, "decode": True, "prefill": True,
    }  # fmt: skip


def test_the_metrics_are_called_as_dynamo_calls_them() -> None:
    """As the release in the engine's environment does."""
    (source,) = ENGINE.parent.glob("lib/python*/site-packages/dynamo/prometheus_names.py")
    names = runpy.run_path(str(source))
    prefix, handler, found = names["name_prefix"].COMPONENT, names["work_handler"], watch("decode")
    assert found is not None
    assert found.in_flight == f"{prefix}_{handler.INFLIGHT_REQUESTS}"
    assert found.begun == f"{prefix}_{handler.REQUESTS_TOTAL}"
    assert found.answered == f"{prefix}_{handler.RESPONSE_BYTES_TOTAL}"
    assert found.labelled == f'{names["labels"].ENDPOINT}="generate"'
