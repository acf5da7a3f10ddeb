"""Plans compared with files. UPDATE_GOLDEN=1 rewrites them; read the difference before you commit it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from entrypoint.plan.text import text
from entrypoint.plan.types import to_jsonable
from tests.plan.deployments import CONTAINERS, build

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", CONTAINERS)
def test_plan_is_as_recorded(name: str) -> None:
    made = json.dumps(to_jsonable(build(CONTAINERS[name])), indent=2) + "\n"
    file = GOLDEN / f"{name}.json"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(made)
    assert made == file.read_text()


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(CONTAINERS)


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_need_is_a_process_or_gate(name: str) -> None:
    plan = build(CONTAINERS[name])
    known = {p.name for p in plan.processes} | {g.name for g in plan.gates}
    for process in plan.processes:
        assert {*process.needs, *process.stops_before} <= known - {process.name}


@pytest.mark.parametrize("name", CONTAINERS)
def test_stop_chain_fits_the_budget(name: str) -> None:
    plan = build(CONTAINERS[name])
    kept = dict.fromkeys(("frontend", "worker", "server"), 0.0)
    drains = dict.fromkeys(kept, 0.0)
    for process in plan.processes:
        step = {"frontend": "frontend", "etcd": "server", "nats": "server"}.get(process.name, "worker")
        assert process.least is not None and 0 < process.least <= process.grace < plan.stop_timeout
        kept[step] = max(kept[step], process.least)
        if process.drain is not None:
            drains[step] = max(drains[step], process.drain.timeout)
    first = next(drain for drain in (*drains.values(), 0.0) if drain or not any(drains.values()))
    assert first + sum(kept.values()) < plan.stop_timeout


@pytest.mark.parametrize("name", CONTAINERS)
def test_text_names_everything_and_stays_narrow(name: str) -> None:
    plan = build(CONTAINERS[name])
    shown = text(plan)
    for process in plan.processes:
        assert f"\n{process.name}\n" in shown
        assert all(word in shown for word in process.argv)
    for wide in (line for line in shown.splitlines() if len(line) > 100):
        assert len(wide.split()) <= 4, wide


def test_secrets_are_in_neither_rendering() -> None:
    plan = build(CONTAINERS["decode-with-native-variables"])
    assert plan.process("decode").env["ETCD_AUTH_PASSWORD"] == "hunter2"
    for shown in (text(plan), json.dumps(to_jsonable(plan))):
        assert "hunter2" not in shown
        assert "me:word" not in shown


def test_single_keeps_everything_but_api_and_health_on_the_loopback() -> None:
    for name in ("single", "single-mocker", "single-etcd"):
        plan = build(CONTAINERS[name])
        outside = {port.name for port in plan.ports if port.host != "127.0.0.1"}
        assert outside == {"http", "health"}
        for process in plan.processes:
            if process.name in ("aggregated", "frontend"):
                assert process.env["DYN_TCP_RPC_HOST"] == "127.0.0.1"


def test_a_model_that_cannot_be_read_is_noted_not_refused() -> None:
    plan = build(CONTAINERS["single-laptop"])
    assert plan.model_error is not None
    assert any("published numbers" in note for note in plan.notes)
    assert any("GLM47_PYTHON" in line for line in plan.unmet)
    assert plan.model_error in text(plan).replace("\n    ", " ")
