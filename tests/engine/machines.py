"""A deployment over two machines: this one and a network namespace (tests/support/node.py)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.engine.stacks import Stack
from tests.support.node import Node
from tests.support.stack import free_ports

STOP = 150.0
"""Seconds within which a container that may drain for 120 has ended."""


def shared(node: Node) -> dict[str, str]:
    """What every container of a deployment over both machines is told."""
    ports = free_ports()
    same = ("GLM47_ETCD_PORT", "GLM47_NATS_PORT", "GLM47_DIST_INIT_PORT")
    common = {"GLM47_HEAD_ADDRESS": node.here, "GLM47_STOP_TIMEOUT": "120"}
    return {name: ports[name] for name in same} | common


def cable(interface: str) -> dict[str, str]:
    """Gloo and UCX would try this machine's other interfaces, which the other machine cannot reach."""
    return {"GLM47_INTERFACE": interface, "GLOO_SOCKET_IFNAME": interface, "UCX_NET_DEVICES": interface}


@contextmanager
def both(
    other: Node, model: Path, release: str, directory: Path, here: str, there: str, **common: str
) -> Iterator[tuple[Stack, Stack]]:
    """A container on each machine, with these roles; started, not yet ready."""
    rank = {"GLM47_NODE_RANK": "1"} if "GLM47_NNODES" in common else {}
    near, far = common | cable(other.interface_here), common | cable(other.interface) | rank
    first = Stack(directory / "here", model, here, release=release, **near)
    second = Stack(directory / "there", model, there, release=release, node=other, **far)
    with first, second:
        yield first, second
