"""The nodes of a Slurm job on this machine: runners of plans made by hand, which ask each other."""

from __future__ import annotations

from collections.abc import Sequence

from entrypoint.plan.types import JobPlan, Peer


def node(number: int) -> str:
    """The name of a node."""
    return f"n{number}"


def job(number: int, ports: Sequence[int]) -> JobPlan:
    """Node `number` of a job whose one decode worker has a rank on each; `ports` are their health ports.

    The leader and its followers watch each other, as in `node.slurm.neighbours`.
    """
    peers = [
        Peer(node(n), f"decode worker 0 rank {n}", f"http://127.0.0.1:{port}")
        for n, port in enumerate(ports)
        if n != number and 0 in (n, number)
    ]
    return JobPlan(
        number=7,
        node=node(number),
        what=f"decode worker 0 rank {number}",
        head=number == 0,
        api_url="http://n0:8000",
        peers=tuple(peers),
        peer_timeout=60.0,
        stops_after={},
        stop_hold=1.0,
        log_names={"decode": f"{node(number)}_decode_w0", "runner": f"{node(number)}_runner"},
    )
