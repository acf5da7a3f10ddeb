"""Two machines that share nothing but a cable: neither reaches what the other binds to its loopback."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.engine.machines import STOP, both, shared
from tests.engine.stacks import START, Stack
from tests.engine.streams import Stream
from tests.support.cpu_engine import greedy
from tests.support.node import Node
from tests.support.runner import until
from tests.support.stack import free_ports

LONG = 400
"""Tokens of an answer that is under way when the stop begins: 5 s and more."""
PAIR = {"GLM47_PREFILL_WORKERS": "1", "GLM47_DECODE_WORKERS": "1"}


def stop(*stacks: Stack) -> None:
    """One after the other, with 0."""
    for each in stacks:
        each.runner.signal(signal.SIGTERM)
        assert each.runner.wait(STOP) == 0, each.runner.text()


def test_prefill_on_one_and_decode_on_the_other(
    other: Node, model: Path, release: str, asked: list[str], right: list[str], tmp_path: Path
) -> None:
    """Prefill is there: what it binds must be what it announces, and not its loopback."""
    roles = ("etcd,nats,decode,frontend", "prefill")
    with both(other, model, release, tmp_path, *roles, **shared(other), **PAIR) as (here, there):
        there.ready()
        here.ready()
        assert greedy(here.url, asked) == right
        assert greedy(here.url, asked * 2, at_once=4) == right * 2
        stop(here, there)


def test_one_worker_over_both(
    other: Node, model: Path, release: str, asked: list[str], right: list[str], tmp_path: Path
) -> None:
    """TP 2: each rank has one of the two KV heads.

    In a stop it answers first, although its follower hears of the stop before its leader does.
    """
    worker = {"GLM47_NNODES": "2", "GLM47_LEADER_ADDRESS": other.here, "GLM47_TP": "2"}
    roles = ("etcd,nats,aggregated,frontend", "aggregated")
    with both(other, model, release, tmp_path, *roles, **shared(other), **worker) as stacks:
        leader, follower = (each.ready().runner for each in stacks)
        url = stacks[0].url
        assert greedy(url, asked) == right
        request = Stream(url, LONG).under_way()
        for runner in (follower, leader):
            runner.signal(signal.SIGTERM)
            runner.wait_for("stopping: asked")
        assert request.is_alive(), "over before the stop began: too short to show anything"
        assert leader.wait(STOP) == 0, leader.text()
        assert follower.wait(STOP) == 0, follower.text()
        assert request.ended() == ""


@contextmanager
def closed(node: Node, port: str) -> Iterator[None]:
    """`port` of `node` refuses connections from outside, as a firewall or a network policy may."""
    rule = ["INPUT", "-i", node.interface, "-p", "tcp", "--dport", port, "-j", "REJECT"]
    subprocess.run(node.command("iptables", "-A", *rule), check=True)
    try:
        yield
    finally:
        subprocess.run(node.command("iptables", "-D", *rule), check=True)


@pytest.mark.engine_more
@pytest.mark.skipif(shutil.which("iptables") is None, reason="needs iptables")
def test_a_bootstrap_port_that_is_closed_is_named_and_nothing_is_sent(
    other: Node, model: Path, release: str, asked: list[str], right: list[str], tmp_path: Path
) -> None:
    """Prefill itself is ready: where it runs, its server is found."""
    port = free_ports()["GLM47_BOOTSTRAP_PORT"]
    common = shared(other) | PAIR | {"GLM47_BOOTSTRAP_PORT": port}
    roles = ("etcd,nats,decode,frontend", "prefill")
    with both(other, model, release, tmp_path, *roles, **common) as (here, there):
        with closed(other, port):
            there.ready()
            line = f"http://{other.address}:{port}, cannot be connected to"
            until(lambda: line in str(here.runner.get("/readyz")[1]), "the frontend names the address", START)
            assert here.runner.get("/readyz")[0] == 503
            assert "warm-up" not in here.runner.text(), "no request has been sent"
        here.ready()
        assert greedy(here.url, asked) == right
        stop(here, there)
