"""Stops of a worker over two nodes, 127.0.0.1 and 127.0.0.2."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.engine.stacks import Stack
from tests.engine.stops import DRAINS, LONG, ended
from tests.engine.streams import Stream
from tests.support.cpu_engine import greedy
from tests.support.stack import free_ports


@pytest.mark.engine_more
@pytest.mark.parametrize("first", ["leader", "follower"])
def test_a_worker_over_two_nodes_answers_before_it_stops(
    first: str, release: str, model: Path, tmp_path: Path, asked: list[str], right: list[str]
) -> None:
    """Its follower goes on until its leader is gone, whichever of them hears of the stop first."""
    ports = free_ports()
    head = {"GLM47_HEAD_ADDRESS": "127.0.0.1", "GLM47_ETCD_PORT": ports["GLM47_ETCD_PORT"]} | DRAINS
    worker = head | {
        "GLM47_LEADER_ADDRESS": "127.0.0.1", "GLM47_NNODES": "2", "GLM47_TP": "2",
        "GLM47_DIST_INIT_PORT": ports["GLM47_DIST_INIT_PORT"],
    }  # fmt: skip
    with ExitStack() as stack:
        front = stack.enter_context(Stack(tmp_path / "head", model, "etcd,frontend", release=release, **head))
        leader, follower = (
            stack.enter_context(
                Stack(
                    tmp_path / f"node{rank}", model, "aggregated", release=release, **worker,
                    GLM47_NODE_RANK=str(rank), SGLANG_HOST_IP=f"127.0.0.{rank + 1}",
                )
            ).runner
            for rank in range(2)
        )  # fmt: skip
        front.ready()
        assert greedy(front.url, asked) == right
        request = Stream(front.url, LONG).under_way()
        began = time.monotonic()
        for runner in (leader, follower) if first == "leader" else (follower, leader):
            runner.signal(signal.SIGTERM)
            runner.wait_for("stopping: asked")
        assert request.is_alive(), "over before the stop began: too short to show anything"
        ended(leader, 0, began)
        ended(follower, 0, began)
        assert request.ended() == ""
