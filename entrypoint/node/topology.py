"""Which node of a job holds which rank and which servers: pure arithmetic over a list of node names.

Workers take whole nodes, or several of one role share a node: prefill workers first, then decode workers, in
the order of the list. The first node is the head: its first worker's container also holds etcd, NATS, the
first frontend and nginx. When that order would put a worker across two NVLink domains, workers are packed
into domains instead, the largest first. What still does not fit is refused where the domains are known, and
only warned of where they are guessed from names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from entrypoint.errors import ConfigError
from entrypoint.node import nvlink
from entrypoint.node.head_count import Wanted, check_count, check_sharing, nodes_in_words, remaining_workers


@dataclass(frozen=True)
class Node:
    """One worker's place on one node of the job: the only one there, or one of several."""

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
    slot: int = 0
    """Index among the workers of this node."""

    @property
    def id(self) -> str:
        """The node's name; of a further worker there with its index, `nvl72d001/1`."""
        return f"{self.name}/{self.slot}" if self.slot else self.name

    @property
    def label(self) -> str:
        """`prefill worker 0 rank 2`."""
        return f"{self.role} worker {self.worker} rank {self.rank}"


@dataclass(frozen=True)
class Topology:
    """A whole deployment, worker by worker on node by node, in the order of the job's node list."""

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
    prefill_workers_per_node: int = 1
    decode_workers_per_node: int = 1
    _by_name: Mapping[str, tuple[Node, ...]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def head(self) -> Node:
        """The place with etcd, NATS, the first frontend and nginx."""
        return self.nodes[0]

    @property
    def names(self) -> tuple[str, ...]:
        """The nodes' names, each once."""
        return tuple(self._by_name)

    @property
    def most_on_a_node(self) -> int:
        """Workers on the node that has most of them."""
        return max(map(len, self._by_name.values()))

    def per_node(self, role: str) -> int:
        """Workers of `role` that share a node."""
        return self.prefill_workers_per_node if role == "prefill" else self.decode_workers_per_node

    @property
    def disaggregated(self) -> bool:
        """Prefill and decode are separate workers."""
        return self.prefill_workers > 0

    def node(self, name: str) -> Node:
        """The first place on the node called `name`; KeyError if the job has no such node."""
        return self._by_name[name][0]

    def places(self, name: str) -> tuple[Node, ...]:
        """All places on the node called `name`, by slot; KeyError if the job has no such node."""
        return self._by_name[name]

    def worker_of(self, node: Node) -> tuple[Node, ...]:
        """All nodes of the worker that `node` belongs to, in order of rank."""
        same = [n for n in self.nodes if (n.role, n.worker) == (node.role, node.worker)]
        return tuple(sorted(same, key=lambda n: n.rank))


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
    prefill_workers_per_node: int = 1,
    decode_workers_per_node: int = 1,
) -> Topology:
    """The place of every worker rank and server on `nodes`.

    `decode_workers` 0 means as many as the nodes that remain hold. Without prefill workers the others are
    aggregated ones. Of a role with several workers on a node the last node may hold fewer.
    `nvlink_domains` names the nodes of each NVLink domain, as host lists with blanks between; without it
    domains are guessed from names by `nvlink_domain_size`, which a person gave or not; 0 means that they do
    not matter. ConfigError says which setting and which nodes do not go together.
    """
    names = tuple(nodes)
    _check_names(names)
    other = "decode" if prefill_workers else "aggregated"
    prefill = Wanted("prefill", prefill_workers, prefill_nodes, prefill_workers_per_node)
    decode = Wanted(other, decode_workers, decode_nodes, decode_workers_per_node)
    check_sharing(prefill if prefill.workers else decode, decode)
    if not decode.workers:
        decode = replace(decode, workers=remaining_workers(len(names), prefill, decode))
    check_count(names, prefill, decode)
    if frontends > len(names):
        raise ConfigError(
            f"cannot place GLM47_FRONTENDS: {frontends}: the job has {nodes_in_words(len(names))}, each "
            f"holds at most one frontend: set GLM47_FRONTENDS to at most {len(names)}"
        )

    sizes = [(role.name, i, role.nodes) for role in (prefill, decode) for i in range(role.groups)]
    groups, domains, warnings = nvlink.place(
        sizes, names, size=nvlink_domain_size, size_given=nvlink_size_given, known=nvlink_domains
    )
    with_frontend = {i * len(names) // frontends for i in range(frontends)}
    placed: dict[int, tuple[Node, ...]] = {}
    for (role, first, size), group in zip(sizes, groups, strict=True):
        wanted = prefill if role == "prefill" else decode
        for rank, index in enumerate(group):
            placed[index] = tuple(
                Node(
                    name=names[index],
                    index=index,
                    role=role,
                    worker=first * wanted.per_node + slot,
                    rank=rank,
                    nnodes=size,
                    leader=names[group[0]],
                    servers=() if slot else _servers(index, index in with_frontend, nginx),
                    domain=domains[index] if domains is not None else None,
                    slot=slot,
                )
                for slot in range(wanted.in_group(first))
            )
    return Topology(
        nodes=tuple(place for index in range(len(names)) for place in placed[index]),
        prefill_workers=prefill_workers,
        prefill_nodes=prefill_nodes,
        decode_workers=decode.workers,
        decode_nodes=decode_nodes,
        frontends=tuple(names[index] for index in sorted(with_frontend)),
        nginx=nginx,
        gpus_per_node=gpus_per_node,
        warnings=(*warnings, *_not_full(placed, prefill, decode)),
        prefill_workers_per_node=prefill_workers_per_node,
        decode_workers_per_node=decode_workers_per_node,
        _by_name={names[index]: placed[index] for index in range(len(names))},
    )


def _not_full(placed: Mapping[int, tuple[Node, ...]], *roles: Wanted) -> Iterator[str]:
    for role in roles:
        for places in placed.values():
            if places[0].role == role.name and len(places) < role.per_node:
                yield (
                    f"{places[0].name} holds {len(places)} of {role.per_node} {role.name} workers: its other "
                    f"GPUs stay idle: {role.setting}_WORKERS={role.groups * role.per_node} would use them"
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


def _servers(index: int, frontend: bool, nginx: bool) -> tuple[str, ...]:
    servers: list[str] = ["etcd", "nats"] if index == 0 else []
    if frontend:
        servers.append("frontend")
    if index == 0 and nginx:
        servers.append("nginx")
    return tuple(servers)
