"""Where this container stands: its roles, its rank, whose addresses. Nothing else reads placement variables.

Sources, first match wins: the GLM47_ settings that were given, LeaderWorkerSet's variables (`LWS_GROUP_SIZE`,
`LWS_WORKER_INDEX`, `LWS_LEADER_ADDRESS`), the topology settings, one node. With ROLE=auto in a Slurm job
the job's node list and the topology settings decide everything (`slurm`).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from entrypoint.node import in_group
from entrypoint.node import network as networks
from entrypoint.node.network import Network, is_loopback
from entrypoint.settings.schema import Settings

if TYPE_CHECKING:
    from entrypoint.node import slurm

LocalAddress = Callable[[str | None, str | None], str | None]

ROLE_ORDER = ("etcd", "nats", "prefill", "decode", "aggregated", "frontend", "nginx")
WORKER_ROLES = ("prefill", "decode", "aggregated")
MANY = 256
"""Nodes of a job that are named as such that no proxy is for, and leaders that are looked up for it."""
RESOLVER_TRIES = 3
"""How often a name server that is out of reach for the moment is asked."""


@dataclass(frozen=True)
class Placement:
    """The place of one container in its deployment."""

    kind: str = "plain"
    """`plain`, `lws` or `slurm`."""
    roles: tuple[str, ...] = ("single",)
    """`single`, or roles in canonical order."""
    nnodes: int = 1
    node_rank: int = 0
    leader_address: str | None = None
    head_address: str | None = None
    node_address: str | None = None
    """Address at which other nodes reach this one; None when it is not known."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Where nnodes, node_rank and leader_address came from, for error lines."""
    problems: tuple[str, ...] = ()
    """What is wrong with the variables; the planner reports them with everything else."""
    unmet: tuple[str, ...] = ()
    """What is wrong with this machine: `run` and `check` report it, `plan` only says so."""
    warnings: tuple[str, ...] = ()
    gloo_interface: str | None = None
    """Interface of `node_address`, where this machine's own name would lead Gloo to a loopback."""
    neighbourhood: tuple[str, ...] = ()
    """Names, addresses and networks of the deployment, as far as they are known: no proxy is for them."""
    job: slurm.Job | None = None
    slot: int = 0
    """Index of this container's worker among those that a Slurm job puts on one node."""
    group: tuple[str, ...] = ()
    """Addresses of this worker's ranks, in their order, where a controller names them (LeaderWorkerSet)."""

    def name(self, what: str) -> str:
        """The setting or variable that gave `what`."""
        return self.names.get(what, f"GLM47_{what.upper()}")

    @property
    def one_machine(self) -> bool:
        """The whole deployment is in this container: nothing inside it needs to be reachable from outside."""
        return self.roles == ("single",)

    @property
    def behind_nginx(self) -> bool:
        """nginx has the API's port, and frontends another."""
        return self.job is not None and self.job.topology.nginx


def in_job(
    job: slurm.Job,
    settings: Settings,
    local_address: LocalAddress | None = None,
    unresolved: Callable[[str], str | None] | None = None,
    network: Network | None = None,
) -> Placement:
    """The placement of one node of a Slurm job.

    `unresolved(name)` says why a node's name cannot be resolved, None when it can; the default asks the
    system's resolver. `local_address` as in `from_environ`.
    """
    from entrypoint.node import slurm

    roles = slurm.roles_of(job)
    alone = roles == ("single",)
    node, topology = job.node, job.topology
    head = settings.head_address or topology.head.name
    placed = Placement(
        kind="slurm",
        roles=roles if alone else tuple(r for r in ROLE_ORDER if r in roles),
        nnodes=node.nnodes,
        node_rank=node.rank,
        leader_address=node.leader if node.nnodes > 1 else None,
        head_address=settings.head_address if alone else head,
        names=dict.fromkeys(slurm.WORKED_OUT, job.nodes_from),
        job=job,
        slot=node.slot,
    )
    if placed.one_machine:
        return placed
    network = network or Network()
    names = dict.fromkeys([head, node.leader, *(other.name for other in slurm.neighbours(job))])
    unmet = [*job.unmet, *filter(None, map(unresolved or _unresolved, names))]
    # The head's own name may lead to its loopback, so there the way to another node is looked up.
    others = [None, *(name for name in topology.names if name != node.name)]
    peer = others[-1] if node.name == topology.head.name else head
    address = _address(network, local_address, peer, settings.interface)
    if address is None and settings.interface is not None:
        unmet.append(_no_interface(settings.interface))
    placed = replace(placed, node_address=address or node.name, unmet=tuple(unmet))
    leaders = [name for name in topology.names if topology.node(name).rank == 0][:MANY]
    known = (found for name in leaders for found in network.addresses(name))
    return _in_network(placed, network, [*topology.names[:MANY], *known])


def _address(
    network: Network, given: LocalAddress | None, peer: str | None, interface: str | None
) -> str | None:
    return networks.own_address(network, peer, interface) if given is None else given(peer, interface)


def _in_network(
    placed: Placement, network: Network, known: Sequence[str] = (), told: Sequence[str | None] = ()
) -> Placement:
    """`placed` with what follows from where names lead on this machine.

    `known`: more names and addresses of the deployment. `told`: further addresses that somebody gave; where
    one of them is a loopback too, a leader there is no mistake: all ranks are on one machine.
    """
    address, leader = placed.node_address, placed.leader_address
    subnet = None if address is None else network.subnet(address)
    near = filter(None, (placed.head_address, leader, address, subnet, *known))
    placed = replace(placed, neighbourhood=tuple(dict.fromkeys(near)))
    if placed.nnodes == 1:
        return placed
    if placed.node_rank and leader is not None and networks.leads_home(network, leader):
        given = filter(None, (placed.head_address, address, *told))
        if not (is_loopback(leader) and any(map(is_loopback, given))):
            placed = replace(placed, unmet=(*placed.unmet, _leader_at_home(placed, network, leader)))
    placed = replace(placed, leader_address=_leader(network, leader, placed.node_rank, address))
    if address is None or is_loopback(address) or not networks.own_name_misleads(network):
        return placed
    if (interface := network.interface(address)) is not None:
        return replace(placed, gloo_interface=interface)
    warning = (
        f"this machine's own name, {network.name()}, leads to its loopback or nowhere, and no interface "
        f"has {address}: the ranks may not find each other; set GLM47_INTERFACE"
    )
    return replace(placed, warnings=(*placed.warnings, warning))


def _leader_at_home(placed: Placement, network: Network, leader: str) -> str:
    led = "" if is_loopback(leader) else f" ({', '.join(network.addresses(leader))})"
    return (
        f"cannot use {placed.name('leader_address')}: {leader}: it leads to this machine's own loopback"
        f"{led}, and rank {placed.node_rank} is not the leader: give the leader's address, "
        "or correct /etc/hosts"
    )


def _leader(network: Network, leader: str | None, rank: int, address: str | None) -> str | None:
    """The leader's address; on the leader itself never its name, where that leads to its own loopback.

    Debian has such a line (127.0.1.1) in /etc/hosts, and Dynamo would announce the bootstrap server there.
    """
    own = network.name().partition(".")[0]
    if rank or leader is None or address is None or leader.partition(".")[0] != own:
        return leader
    return address if any(map(is_loopback, network.addresses(leader))) else leader


def _unresolved(name: str) -> str | None:
    for _ in range(RESOLVER_TRIES):
        try:
            socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            return None
        except (OSError, ValueError) as error:  # ValueError: no host can have that name
            reason = error.strerror if isinstance(error, OSError) else str(error)
            if not isinstance(error, OSError) or error.errno != socket.EAI_AGAIN:
                break
    return (
        f"cannot resolve the node's name: {name}: {reason}: add it to DNS or /etc/hosts "
        "(pyxis: mount the host's), or set GLM47_HEAD_ADDRESS if it is the head"
    )


def _no_interface(interface: str) -> str:
    return (
        f"cannot use GLM47_INTERFACE: {interface}: it has no address here that others can reach: "
        "name one of `ip -brief address`, or unset it"
    )


def from_environ(
    environ: Mapping[str, str],
    settings: Settings,
    local_address: LocalAddress | None = None,
    network: Network | None = None,
) -> Placement:
    """The placement that `environ` and `settings` describe.

    `local_address(head, interface)` gives this node's own address; the default asks the kernel's routing
    table and sends nothing.
    """
    problems: list[str] = []
    network = network or Network()
    roles = _roles(settings.role)
    lws = "LWS_GROUP_SIZE" in environ or "LWS_WORKER_INDEX" in environ
    if settings.role == "auto" and lws:
        problem = (
            "cannot work out ROLE: auto: LeaderWorkerSet does not say what its group is for: "
            "set ROLE to prefill, decode or aggregated"
        )
        return Placement(kind="lws", problems=(problem,))
    given = settings.model_fields_set
    names: dict[str, str] = {}

    nnodes = settings.nnodes
    if "nnodes" not in given:
        if "LWS_GROUP_SIZE" in environ:
            nnodes = _number(environ, "LWS_GROUP_SIZE", 1, problems)
            names["nnodes"] = "LWS_GROUP_SIZE"
        elif (wanted := _topology_nodes(roles, settings)) is not None:
            names["nnodes"], nnodes = wanted

    rank = settings.node_rank
    if "node_rank" not in given and "LWS_WORKER_INDEX" in environ:
        rank = _number(environ, "LWS_WORKER_INDEX", 0, problems)
        names["node_rank"] = "LWS_WORKER_INDEX"

    leader = settings.leader_address
    group: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    if leader is None and environ.get("LWS_LEADER_ADDRESS"):
        leader = environ["LWS_LEADER_ADDRESS"]
        names["leader_address"] = "LWS_LEADER_ADDRESS"
        if names.keys() >= {"nnodes", "node_rank"} and rank < nnodes:
            group = in_group.addresses(leader, nnodes, rank, environ.get("POD_NAME"))
            if not group:
                warnings += (in_group.unwatched(leader),)

    address = _address(network, local_address, settings.head_address or leader, settings.interface)
    if roles == ("single",):
        address = address if ":" in (address or "") else None  # only whether it has nothing but IPv6
    elif address is None and settings.interface is not None:
        problems.append(_no_interface(settings.interface))
    placed = Placement(
        kind="lws" if lws else "plain",
        roles=roles,
        nnodes=nnodes,
        node_rank=rank,
        leader_address=leader,
        head_address=settings.head_address,
        node_address=address,
        names=names,
        problems=tuple(problems),
        warnings=warnings,
        group=group,
    )
    if placed.one_machine:
        return placed
    told = [environ.get(name) for name in ("SGLANG_HOST_IP", "HOST_IP")]
    store = environ.get("ETCD_ENDPOINTS", "").partition(",")[0].partition("://")[2].rpartition(":")[0]
    return _in_network(placed, network, told=(*told, store))


def _roles(role: str) -> tuple[str, ...]:
    words = {word.strip() for word in role.split(",") if word.strip()}
    if words & {"auto", "single"}:
        return ("single",)
    return tuple(r for r in ROLE_ORDER if r in words)


def _topology_nodes(roles: tuple[str, ...], settings: Settings) -> tuple[str, int] | None:
    if "prefill" in roles and settings.prefill_nodes > 1:
        return "GLM47_PREFILL_NODES", settings.prefill_nodes
    if {"decode", "aggregated"} & set(roles) and settings.decode_nodes > 1:
        return "GLM47_DECODE_NODES", settings.decode_nodes
    return None


def _number(environ: Mapping[str, str], name: str, least: int, problems: list[str]) -> int:
    text = environ[name]
    if text.isascii() and text.isdigit() and int(text) >= least:
        return int(text)
    problems.append(f"cannot use {name}: {text}: give a whole number of at least {least}")
    return least
