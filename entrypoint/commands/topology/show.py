"""A topology as a table for people and as data for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from entrypoint.node.job_ports import shift
from entrypoint.node.topology import Node, Topology
from entrypoint.plan.table import table


@dataclass(frozen=True)
class Listeners:
    """What listens where in a deployment; no two nodes differ in that, but a node's workers do."""

    url: str
    """Of the API."""
    numbers: Mapping[str, int]
    """Ports by what listens: health, nginx, frontend, etcd, etcd peer, nats, nats monitor, engine."""
    bootstrap: int
    dist_init: Mapping[str, int]
    """By role: extra arguments of a role's own may move it."""
    schemes: tuple[str, str] = ("http", "nats")
    """Of etcd's and NATS' addresses."""

    def servers(self, head: str) -> tuple[str, str]:
        """Where etcd and NATS are on node `head`."""
        etcd, nats = self.schemes
        return f"{etcd}://{head}:{self.numbers['etcd']}", f"{nats}://{head}:{self.numbers['nats']}"

    def of(self, node: Node) -> dict[str, int]:
        """What listens on `node`."""
        servers: list[str] = [name for name in ("nginx", "frontend") if name in node.servers]
        for server, second in (("etcd", "etcd peer"), ("nats", "nats monitor")):
            if server in node.servers:
                servers += [server, second]
        found = {name: self.numbers[name] for name in ("health", *servers, "engine")}
        if node.role == "prefill" and node.rank == 0:
            found["bootstrap"] = self.bootstrap
        for name in {"health", "engine", "bootstrap"} & found.keys():
            found[name] += shift(node.slot)
        if node.nnodes > 1 and node.rank == 0:
            found["dist-init"] = self.dist_init[node.role]
        return found


def as_data(topology: Topology, listeners: Listeners) -> dict[str, Any]:
    """The topology as JSON-able data."""
    head = topology.head.name
    etcd, nats = listeners.servers(head)
    return {
        "format": 1,
        "head": head,
        "url": listeners.url,
        "etcd": etcd,
        "nats": nats,
        "prefill_workers": topology.prefill_workers,
        "prefill_nodes": topology.prefill_nodes,
        "decode_workers": topology.decode_workers,
        "decode_nodes": topology.decode_nodes,
        "frontends": list(topology.frontends),
        "nginx": topology.nginx,
        "nodes": [
            {
                "name": node.name,
                "index": node.index,
                "role": node.role,
                "worker": node.worker,
                "rank": node.rank,
                "nnodes": node.nnodes,
                "leader": node.leader,
                "gpus": topology.gpus_per_node // topology.per_node(node.role),
                "slot": node.slot,
                "servers": list(node.servers),
                "nvlink_domain": node.domain,
                "ports": listeners.of(node),
            }
            for node in topology.nodes
        ],
    }


def as_text(topology: Topology, listeners: Listeners) -> str:
    """The topology as a table, with what the whole deployment shares above it; ends with a newline."""
    etcd, nats = listeners.servers(topology.head.name)
    entry = "nginx" if topology.nginx else "frontend"
    lines = [
        summary(topology),
        f"API   {listeners.url} ({entry})",
        f"etcd  {etcd}",
        f"NATS  {nats}",
        "",
    ]
    rows = [("NODE", "ROLE", "WORKER", "RANK", "LEADER", "SERVERS", "PORTS")]
    for node in topology.nodes:
        leader = f"{node.leader}:{listeners.dist_init[node.role]}" if node.nnodes > 1 else "-"
        listening = " ".join(f"{name.replace(' ', '-')}:{port}" for name, port in listeners.of(node).items())
        rows.append(
            (
                node.id,
                node.role,
                str(node.worker),
                f"{node.rank}/{node.nnodes}",
                leader,
                ",".join(node.servers) or "-",
                listening,
            )
        )
    lines.extend(table(rows))
    return "\n".join(lines) + "\n"


def summary(topology: Topology) -> str:
    """One line: how many nodes, workers and GPUs."""

    def workers(count: int, role: str, nodes: int) -> str:
        gpus = nodes * topology.gpus_per_node
        plural, on_a_node = "" if count == 1 else "s", topology.per_node(role)
        if on_a_node > 1:
            return f"{count} {role} worker{plural} ({on_a_node} on a node of {gpus} GPUs)"
        each = f"{nodes} node{'' if nodes == 1 else 's'}, {gpus} GPUs"
        return f"{count} {role} worker{plural} ({each}{'' if count == 1 else ' each'})"

    total = len(topology.names)
    parts = [workers(topology.decode_workers, topology.nodes[-1].role, topology.decode_nodes)]
    if topology.disaggregated:
        parts = [
            workers(topology.prefill_workers, "prefill", topology.prefill_nodes),
            workers(topology.decode_workers, "decode", topology.decode_nodes),
        ]
    return f"{total} node{'' if total == 1 else 's'}: " + ", ".join(parts)
