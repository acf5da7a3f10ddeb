"""A topology as a table for people and as data for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from entrypoint.topology import Node, Topology

_SERVER_PORTS = {
    "etcd": (("etcd", "etcd_port"), ("etcd peer", "etcd_peer_port")),
    "nats": (("nats", "nats_port"), ("nats monitor", "nats_monitor_port")),
}


def node_ports(topology: Topology, node: Node, ports: Mapping[str, int]) -> dict[str, int]:
    """What listens on `node`, by name. `ports` has a number for each port setting, by field name."""
    found = {"health": ports["health_port"]}
    if "nginx" in node.servers:
        found["nginx"] = ports["http_port"]
    if "frontend" in node.servers:
        found["frontend"] = ports["upstream_port"] if topology.nginx else ports["http_port"]
    for server in ("etcd", "nats"):
        if server in node.servers:
            found.update({name: ports[setting] for name, setting in _SERVER_PORTS[server]})
    found["engine"] = ports["system_port"]
    if node.role == "prefill" and node.rank == 0:
        found["bootstrap"] = ports["bootstrap_port"]
    if node.nnodes > 1 and node.rank == 0:
        found["dist-init"] = ports["dist_init_port"]
    return found


def as_data(topology: Topology, ports: Mapping[str, int]) -> dict[str, Any]:
    """The topology as JSON-able data."""
    head = topology.head.name
    return {
        "format": 1,
        "head": head,
        "url": f"http://{head}:{ports['http_port']}",
        "etcd": f"http://{head}:{ports['etcd_port']}",
        "nats": f"nats://{head}:{ports['nats_port']}",
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
                "gpus": topology.gpus_per_node,
                "servers": list(node.servers),
                "nvlink_domain": node.domain,
                "ports": node_ports(topology, node, ports),
            }
            for node in topology.nodes
        ],
    }


def as_text(topology: Topology, ports: Mapping[str, int]) -> str:
    """The topology as a table, with what the whole deployment shares above it; ends with a newline."""
    head = topology.head.name
    entry = "nginx" if topology.nginx else "frontend"
    lines = [
        summary(topology),
        f"API   http://{head}:{ports['http_port']} ({entry})",
        f"etcd  http://{head}:{ports['etcd_port']}",
        f"NATS  nats://{head}:{ports['nats_port']}",
        "",
    ]
    rows = [("NODE", "ROLE", "WORKER", "RANK", "LEADER", "SERVERS", "PORTS")]
    for node in topology.nodes:
        leader = f"{node.leader}:{ports['dist_init_port']}" if node.nnodes > 1 else "-"
        listening = " ".join(
            f"{name.replace(' ', '-')}:{port}" for name, port in node_ports(topology, node, ports).items()
        )
        rows.append(
            (
                node.name,
                node.role,
                str(node.worker),
                f"{node.rank}/{node.nnodes}",
                leader,
                ",".join(node.servers) or "-",
                listening,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    layout = "  ".join(f"{{:<{width}}}" for width in widths) + "  {}"
    lines.extend(layout.format(*row) for row in rows)
    return "\n".join(lines) + "\n"


def summary(topology: Topology) -> str:
    """One line: how many nodes, workers and GPUs."""

    def workers(count: int, role: str, nodes: int) -> str:
        gpus = nodes * topology.gpus_per_node
        plural = "" if count == 1 else "s"
        each = f"{nodes} node{'' if nodes == 1 else 's'}, {gpus} GPUs"
        return f"{count} {role} worker{plural} ({each}{'' if count == 1 else ' each'})"

    total = len(topology.nodes)
    parts = [workers(topology.decode_workers, topology.nodes[-1].role, topology.decode_nodes)]
    if topology.disaggregated:
        parts = [
            workers(topology.prefill_workers, "prefill", topology.prefill_nodes),
            workers(topology.decode_workers, "decode", topology.decode_nodes),
        ]
    return f"{total} node{'' if total == 1 else 's'}: " + ", ".join(parts)
