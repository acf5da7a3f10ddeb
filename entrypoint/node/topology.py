"""Which node of a job holds which rank and which servers: pure arithmetic over a list of node names.

Workers take whole nodes: prefill workers first, then decode workers, in the order of the list. The first
node is the head: it also holds etcd, NATS, the first frontend and nginx. When that order would put a worker
across two NVLink domains, workers are packed into domains instead, the largest first. What still does not
fit is refused where the domains are known, and only warned of where they are guessed from names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from entrypoint.errors import ConfigError
from entrypoint.node import nvlink

JOB_PORTS_FIRST = 10000
JOB_PORTS_BLOCK = 32
JOB_PORTS_BLOCKS = 700
"""Blocks end at 32400: below Linux's ephemeral ports, and below 32768 as Dynamo's system port must be."""

_JOB_PORT_OFFSETS = {
    "http_port": 0,
    "upstream_port": 1,
    "health_port": 2,
    "etcd_port": 3,
    "etcd_peer_port": 4,
    "nats_port": 5,
    "nats_monitor_port": 6,
    "system_port": 7,
    "bootstrap_port": 8,
    # SGLang takes further ports right above this one, so it is the last of the block.
    "dist_init_port": 12,
}


@dataclass(frozen=True)
class Node:
    """One node of the job."""

    name: str
    index: int
    """Its place in the job's node list (SLURM_NODEID of a job-wide step)."""
    role: str
    """`prefill`, `decode` or `aggregated`."""
    worker: int
    """Index among the workers of this role."""
    rank: int
    nnodes: int
    leader: str
    """Name of the node with rank 0 of the same worker."""
    servers: tuple[str, ...] = ()
    """Of etcd, nats, frontend, nginx: what this node holds besides its rank."""
    domain: str | None = None
    """NVLink domain, known or as far as names tell; None: not looked at."""

    @property
    def label(self) -> str:
        """`prefill worker 0 rank 2`."""
        return f"{self.role} worker {self.worker} rank {self.rank}"


@dataclass(frozen=True)
class Topology:
    """A whole deployment, node by node, in the order of the job's node list."""

    nodes: tuple[Node, ...]
    prefill_workers: int
    prefill_nodes: int
    decode_workers: int
    """Decode workers, or aggregated ones when there is no prefill worker."""
    decode_nodes: int
    frontends: tuple[str, ...]
    """Names of the nodes with a frontend; the head is the first."""
    nginx: bool
    gpus_per_node: int
    warnings: tuple[str, ...] = ()
    """What may be wrong with it."""
    _by_name: Mapping[str, Node] = field(default_factory=dict, repr=False, compare=False)

    @property
    def head(self) -> Node:
        """The node with etcd, NATS, the first frontend and nginx."""
        return self.nodes[0]

    @property
    def disaggregated(self) -> bool:
        """Prefill and decode are separate workers."""
        return self.prefill_workers > 0

    def node(self, name: str) -> Node:
        """The node called `name`; KeyError if the job has none."""
        return self._by_name[name]

    def worker_of(self, node: Node) -> tuple[Node, ...]:
        """All nodes of the worker that `node` belongs to, in order of rank."""
        same = [n for n in self.nodes if (n.role, n.worker) == (node.role, node.worker)]
        return tuple(sorted(same, key=lambda n: n.rank))


def job_ports(job_id: int) -> dict[str, int]:
    """A port for each port setting, from a block that the job's number picks.

    Jobs that share a node get different blocks unless their numbers are equal modulo 700. All nodes of a job
    come to the same ports without talking to each other.
    """
    first = JOB_PORTS_FIRST + JOB_PORTS_BLOCK * (job_id % JOB_PORTS_BLOCKS)
    return {name: first + offset for name, offset in _JOB_PORT_OFFSETS.items()}


def lay_out(
    nodes: Sequence[str],
    *,
    prefill_workers: int = 0,
    prefill_nodes: int = 1,
    decode_workers: int = 0,
    decode_nodes: int = 1,
    frontends: int = 1,
    nginx: bool = False,
    nvlink_domain_size: int = 18,
    nvlink_size_given: bool = False,
    nvlink_domains: str | None = None,
    gpus_per_node: int = 4,
) -> Topology:
    """The place of every worker rank and server on `nodes`.

    `decode_workers` 0 means as many as the nodes that remain hold. Without prefill workers the others are
    aggregated ones. `nvlink_domains` names the nodes of each NVLink domain, as host lists with blanks
    between; without it domains are guessed from names by `nvlink_domain_size`, which a person gave or not;
    0 means that they do not matter. ConfigError says which setting and which nodes do not go together.
    """
    names = tuple(nodes)
    _check_names(names)
    other = "decode" if prefill_workers else "aggregated"
    decode_workers = decode_workers or _remaining_workers(
        len(names), prefill_workers, prefill_nodes, decode_nodes, other
    )
    sizes = [("prefill", i, prefill_nodes) for i in range(prefill_workers)]
    sizes += [(other, i, decode_nodes) for i in range(decode_workers)]
    _check_count(names, prefill_workers, prefill_nodes, decode_workers, decode_nodes, other)
    if frontends > len(names):
        raise ConfigError(
            f"cannot place GLM47_FRONTENDS: {frontends}: the job has {_nodes(len(names))}, each holds at "
            f"most one frontend: set GLM47_FRONTENDS to at most {len(names)}"
        )

    groups, domains, warnings = nvlink.place(
        sizes, names, size=nvlink_domain_size, size_given=nvlink_size_given, known=nvlink_domains
    )
    with_frontend = {i * len(names) // frontends for i in range(frontends)}
    placed: dict[int, Node] = {}
    for (role, worker, size), group in zip(sizes, groups, strict=True):
        for rank, index in enumerate(group):
            placed[index] = Node(
                name=names[index],
                index=index,
                role=role,
                worker=worker,
                rank=rank,
                nnodes=size,
                leader=names[group[0]],
                servers=_servers(index, index in with_frontend, nginx),
                domain=domains[index] if domains is not None else None,
            )
    ordered = tuple(placed[index] for index in range(len(names)))
    return Topology(
        nodes=ordered,
        prefill_workers=prefill_workers,
        prefill_nodes=prefill_nodes,
        decode_workers=decode_workers,
        decode_nodes=decode_nodes,
        frontends=tuple(names[index] for index in sorted(with_frontend)),
        nginx=nginx,
        gpus_per_node=gpus_per_node,
        warnings=warnings,
        _by_name={node.name: node for node in ordered},
    )


def _check_names(names: tuple[str, ...]) -> None:
    if not names:
        raise ConfigError("cannot lay out the deployment: the node list is empty: name at least one node")
    if len(set(names)) == len(names):
        return
    seen: set[str] = set()
    twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
    raise ConfigError(
        f"cannot lay out the deployment: {twice} is in the node list twice: name each node once"
    )


def _remaining_workers(total: int, p_workers: int, p_nodes: int, d_nodes: int, other: str) -> int:
    """How many workers of `d_nodes` nodes the nodes without prefill workers hold."""
    rest = total - p_workers * p_nodes
    if rest < d_nodes:
        return 1
    if rest % d_nodes:
        raise ConfigError(
            f"cannot divide the {_nodes(rest)} for {other} workers: GLM47_DECODE_NODES is {d_nodes} nodes "
            f"each: ask Slurm for --nodes={total - rest % d_nodes} or "
            f"--nodes={total - rest % d_nodes + d_nodes}, "
            "or change GLM47_DECODE_NODES"
        )
    return rest // d_nodes


def _check_count(
    names: tuple[str, ...], p_workers: int, p_nodes: int, d_workers: int, d_nodes: int, other: str
) -> None:
    wanted = p_workers * p_nodes + d_workers * d_nodes
    if wanted == len(names):
        return
    sums = [f"GLM47_DECODE_WORKERS {d_workers} x GLM47_DECODE_NODES {d_nodes}"]
    if p_workers:
        sums.insert(0, f"GLM47_PREFILL_WORKERS {p_workers} x GLM47_PREFILL_NODES {p_nodes}")
    what = (
        f"{_workers(p_workers, 'prefill')} and {_workers(d_workers, other)}"
        if p_workers
        else _workers(d_workers, other)
    )
    need = f"{' + '.join(sums)} need{'s' if len(sums) == 1 else ''} {wanted}"
    if wanted > len(names):
        raise ConfigError(
            f"cannot place {what}: the job has too few nodes, {len(names)}: {need}: "
            f"ask Slurm for --nodes={wanted}, or lower one of them"
        )
    idle = names[wanted:]
    shown = ", ".join(idle[:4]) + (f" and {len(idle) - 4} more" if len(idle) > 4 else "")
    raise ConfigError(
        f"cannot place {what}: the job has too many nodes, {len(names)}: {need}, and {shown} would stay "
        f"idle: ask Slurm for --nodes={wanted}, or raise one of them"
    )


def _servers(index: int, frontend: bool, nginx: bool) -> tuple[str, ...]:
    servers: list[str] = ["etcd", "nats"] if index == 0 else []
    if frontend:
        servers.append("frontend")
    if index == 0 and nginx:
        servers.append("nginx")
    return tuple(servers)


def _nodes(count: int) -> str:
    return f"{count} node{'' if count == 1 else 's'}"


def _workers(count: int, role: str) -> str:
    return f"{count} {role} worker{'' if count == 1 else 's'}"
