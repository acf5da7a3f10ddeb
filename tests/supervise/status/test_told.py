"""What a runner tells is what another one reads: this release's own status, held or running, goes through."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from entrypoint.errors import ExitCode
from entrypoint.plan.types import HttpProbe
from entrypoint.supervise.status import client, held, told
from tests.support.mutated import mutated
from tests.support.plans import plan, process, server
from tests.support.runner import Runner, until


def same(read: dict[str, Any], said: dict[str, Any]) -> None:
    """Nothing that was said is lost or changed; fields that it leaves out are filled in."""
    assert {name: read[name] for name in said if name != "processes"} == {
        name: value for name, value in said.items() if name != "processes"
    }
    for ours, theirs in zip(read["processes"], said["processes"], strict=True):
        assert theirs.items() <= ours.items()


def test_a_running_runners_status_goes_through_whole(tmp_path: Path) -> None:
    waits = process("engine", ready=HttpProbe("http://127.0.0.1:1/"))
    with Runner.of_plan(plan(waits, server("etcd"), warnings=("a warning",)), tmp_path) as runner:
        until(lambda: "no connection to" in str(runner.get("/readyz")), "the probe's reason")
        said = runner.get("/status")[1]
        same(told.status(said), said)
        view = runner.get("/view")[1]
        assert told.view(view)["status"]["state"] == "starting"
        assert told.state(runner.get("/readyz")[1])["waiting_for"]
        assert client.get_status(f"http://127.0.0.1:{runner.health_port}")["state"] == "starting"


@pytest.mark.parametrize("code", (ExitCode.MODEL, ExitCode.CONFIG))
def test_a_held_runners_status_goes_through_whole(code: ExitCode) -> None:
    said = json.loads(json.dumps(held.status(code, "cannot use GLM47_TP: x: give a number")))
    same(told.status(said), said)


@pytest.mark.parametrize("seed", range(80))
def test_a_changed_status_is_refused_or_of_the_right_kinds(seed: int) -> None:
    decode = {"name": "decode", "state": "running", "ready": True, "age": 4.0, "restarts": 0, "why": None}
    status = held.status(ExitCode.CONFIG, "no") | {"processes": [decode, dict(decode, name="frontend")]}
    try:
        read = told.status(json.loads(json.dumps(mutated(status, random.Random(seed)))))
    except ValueError as error:
        assert str(error).startswith("no status of a runner")
        return
    assert isinstance(read["state"], str) and isinstance(read["ready"], bool)
    assert all(isinstance(line, str) for line in (*read["waiting_for"], *read["warnings"], *read["roles"]))
    assert isinstance(read["rank"], int) and isinstance(read["nnodes"], int)
    for one in read["processes"]:
        assert isinstance(one["name"], str) and isinstance(one["restarts"], int)
        assert one["age"] is None or one["age"] == one["age"]
