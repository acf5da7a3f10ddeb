"""The ports of a Slurm job, and of each worker where several share a node: pure arithmetic."""

from __future__ import annotations

FIRST = 10000
BLOCK = 32
BLOCKS = 700
"""Blocks end at 32400: below Linux's ephemeral ports, and below 32768 as Dynamo's system port must be."""
SLOTS = 8
"""Workers on one node at most: their ports are in the job's one block."""
OF_WORKERS = ("health_port", "system_port", "bootstrap_port")
"""Settings whose ports each worker of a node has for itself."""
_OFFSETS = {
    "http_port": 0,
    "upstream_port": 1,
    "health_port": 2,
    "system_port": 3,
    "bootstrap_port": 4,
    "etcd_port": 5,
    "etcd_peer_port": 6,
    "nats_port": 7,
    "nats_monitor_port": 8,
    # SGLang takes further ports right above this one, so it is the last of the block. Workers that share a
    # node have these ports in its place: they are of one node each, and have no meeting point.
    "dist_init_port": 9,
}


def job_ports(job_id: int) -> dict[str, int]:
    """A port for each port setting, from a block that the job's number picks.

    Jobs that share a node get different blocks unless their numbers are equal modulo 700. All nodes of a job
    come to the same ports without talking to each other.
    """
    first = FIRST + BLOCK * (job_id % BLOCKS)
    return {name: first + offset for name, offset in _OFFSETS.items()}


def shift(slot: int) -> int:
    """How far the ports of a node's worker `slot` are above those of its first one: no two meet."""
    first = _OFFSETS["dist_init_port"] - _OFFSETS[OF_WORKERS[0]]
    return slot and first + len(OF_WORKERS) * (slot - 1)
