"""Workers that share a machine: two of one role as tasks of a Slurm job; two prefill and one decode."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.engine.stacks import START, Stack
from tests.engine.stops import DRAINS
from tests.stack.test_shared_node import tasks
from tests.support import cpu_engine
from tests.support.runner import until
from tests.support.stack import ask, free_ports

pytestmark = pytest.mark.engine_more


def test_two_workers_of_one_node_answer_rightly(
    release: str, model: Path, asked: list[str], right: list[str], tmp_path: Path
) -> None:
    """Each starts an engine of its own, with one of the node's two GPUs, in the same moment."""
    settings = {**cpu_engine.settings(model, release=release, gpus=2), "GLM47_START_TIMEOUT": "600"}
    with tasks(tmp_path, settings) as (runners, ports):
        until(lambda: all(runner.get("/readyz")[0] == 200 for runner in runners), "ready", START)
        url = f"http://127.0.0.1:{ports['http_port']}"
        assert cpu_engine.greedy(url, asked * 2, at_once=4) == right * 2
        both = [runner.status_of("aggregated")["ready"] for runner in runners]
        assert both == [True, True]
        for runner in runners:
            runner.signal(signal.SIGTERM)
        assert [runner.wait(60) for runner in runners] == [0, 0]


def test_two_prefill_workers_and_one_decode_worker(
    release: str, model: Path, asked: list[str], right: list[str], tmp_path: Path
) -> None:
    """In containers of one machine: every prefill worker hands its caches to the decode worker."""
    ports = free_ports()
    same = {name: ports[name] for name in ("GLM47_ETCD_PORT", "GLM47_NATS_PORT")} | DRAINS
    same |= {"GLM47_HEAD_ADDRESS": "127.0.0.1", "GLM47_PREFILL_WORKERS": "2", "GLM47_DECODE_WORKERS": "1"}
    with ExitStack() as stack:
        head, *workers = (
            stack.enter_context(Stack(tmp_path / name, model, role, release=release, **same))
            for name, role in (("head", "etcd,frontend"), ("a", "prefill"), ("b", "prefill"), ("d", "decode"))
        )
        for each in (*workers, head):
            each.ready()
        assert cpu_engine.greedy(head.url, asked * 2, at_once=4) == right * 2
        _, health = ask(head.ports["GLM47_HTTP_PORT"], "/health")
        found = [i["component"] for i in health["instances"] if i["endpoint"] == "generate"]
        assert sorted(found) == ["backend", "prefill", "prefill"]
