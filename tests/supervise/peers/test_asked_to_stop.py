"""What a runner of several says when it is asked to stop before all have come up."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from entrypoint.plan.types import JobPlan, Peer
from tests.support.plans import plan, process
from tests.support.runner import Runner, free_port, until


def job(*peers: Peer) -> JobPlan:
    return JobPlan(
        number=7, node="n1", what="decode worker 0 rank 0", head=False, api_url=None, peers=peers,
        peer_timeout=60.0, stops_after={}, stop_hold=1.0, log_names={},
    )  # fmt: skip


@pytest.mark.parametrize("peers", [0, 1, 2])
def test_who_had_not_come_up_is_named(peers: int, tmp_path: Path) -> None:
    """n2 is up, as far as there is one; n3 never came."""
    missing = Peer("n3", "prefill worker 1 rank 0", f"http://127.0.0.1:{free_port()}")
    (tmp_path / "n2").mkdir()
    with Runner.of_plan(plan(process("decode")), tmp_path / "n2") as second:
        second.wait_for("decode is ready")
        up = Peer("n2", "decode worker 0 rank 1", f"http://127.0.0.1:{second.health_port}")
        planned = plan(process("decode"), job=job(*[up, missing][:peers]), stop_timeout=5.0)
        with Runner.of_plan(planned, tmp_path) as runner:
            runner.wait_for("decode is ready")
            if peers:
                until(lambda: "clocks" in runner.get("/status")[1], "it answers")
            runner.signal(signal.SIGTERM)
            assert runner.wait() == 0
    last = re.sub(r"^\S+Z ", "", runner.lines[-1])
    assert last.startswith("runner | asked to stop by SIGTERM")
    told = last.partition("; had not come up: ")[2]
    if peers < 2:
        assert told == "", last
    else:
        assert re.fullmatch(r"n3 \(prefill worker 1 rank 0\): .*", told), last
