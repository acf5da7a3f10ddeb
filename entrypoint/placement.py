"""Where this container stands: its roles, its rank, whose addresses. Nothing else reads placement variables.

Sources, first match wins: the GLM47_ settings that were given, LeaderWorkerSet's variables (`LWS_GROUP_SIZE`,
`LWS_WORKER_INDEX`, `LWS_LEADER_ADDRESS`), the topology settings, one node. With ROLE=auto in a Slurm job
the job's node list and the topology settings decide everything (`slurm`).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from entrypoint.settings import Settings

if TYPE_CHECKING:
    from entrypoint import slurm

LocalAddress = Callable[[str | None, str | None], str | None]

ROLE_ORDER = ("etcd", "nats", "prefill", "decode", "aggregated", "frontend", "nginx")
WORKER_ROLES = ("prefill", "decode", "aggregated")
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
    job: slurm.Job | None = None

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
) -> Placement:
    """The placement of one node of a Slurm job.

    `unresolved(name)` says why a node's name cannot be resolved, None when it can; the default asks the
    system's resolver. `local_address` as in `from_environ`.
    """
    from entrypoint import slurm

    roles = slurm.roles_of(job)
    node, topology = job.node, job.topology
    placed = Placement(
        kind="slurm",
        roles=roles if roles == ("single",) else tuple(r for r in ROLE_ORDER if r in roles),
        nnodes=node.nnodes,
        node_rank=node.rank,
        leader_address=settings.leader_address,
        head_address=settings.head_address,
        names=dict.fromkeys(slurm.WORKED_OUT, "SLURM_JOB_NODELIST"),
        job=job,
    )
    if placed.one_machine:
        return placed
    head = settings.head_address or topology.head.name
    names = dict.fromkeys([head, node.leader, *(other.name for other in slurm.neighbours(job))])
    unmet = [line for name in names if (line := (unresolved or _unresolved)(name)) is not None]
    # The head's own name may lead to its loopback, so there the way to another node is looked up.
    peer = topology.nodes[-1].name if node is topology.head else head
    address = (local_address or _local_address)(peer, settings.interface)
    if address is None and settings.interface is not None:
        unmet.append(_no_interface(settings.interface))
    return replace(placed, node_address=address or node.name, unmet=tuple(unmet))


def _unresolved(name: str) -> str | None:
    for _ in range(RESOLVER_TRIES):
        try:
            socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            return None
        except socket.gaierror as error:
            reason = error.strerror
            if error.errno != socket.EAI_AGAIN:
                break
    return (
        f"cannot resolve the node's name: {name}: {reason}; add it to DNS or /etc/hosts "
        "(pyxis: mount the host's), or set GLM47_HEAD_ADDRESS if it is the head"
    )


def _no_interface(interface: str) -> str:
    return (
        f"cannot use GLM47_INTERFACE: {interface}: it has no IPv4 address here; "
        "name one of `ip -brief address`, or unset it"
    )


def from_environ(
    environ: Mapping[str, str],
    settings: Settings,
    local_address: LocalAddress | None = None,
) -> Placement:
    """The placement that `environ` and `settings` describe.

    `local_address(head, interface)` gives this node's own address; the default asks the kernel's routing
    table and sends nothing.
    """
    problems: list[str] = []
    roles = _roles(settings.role)
    lws = "LWS_GROUP_SIZE" in environ or "LWS_WORKER_INDEX" in environ
    if settings.role == "auto" and lws:
        problem = (
            "cannot work out ROLE: auto: LeaderWorkerSet does not say what its group is for; "
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
    if leader is None and environ.get("LWS_LEADER_ADDRESS"):
        leader = environ["LWS_LEADER_ADDRESS"]
        names["leader_address"] = "LWS_LEADER_ADDRESS"

    address = None
    if roles != ("single",):
        address = (local_address or _local_address)(settings.head_address or leader, settings.interface)
        if address is None and settings.interface is not None:
            problems.append(_no_interface(settings.interface))
    return Placement(
        kind="lws" if lws else "plain",
        roles=roles,
        nnodes=nnodes,
        node_rank=rank,
        leader_address=leader,
        head_address=settings.head_address,
        node_address=address,
        names=names,
        problems=tuple(problems),
    )


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


def _local_address(peer: str | None, interface: str | None) -> str | None:
    if interface is not None:
        return _interface_address(interface)
    # Connecting a datagram socket only looks up the route; 192.0.2.1 is reserved for documentation and stands
    # for "anywhere outside" when there is no peer to ask for.
    for target in (peer, "192.0.2.1"):
        if target is None:
            continue
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))
                found: str = probe.getsockname()[0]
                if not found.startswith("127."):
                    return found
        except OSError:
            continue
    return None


def _interface_address(interface: str) -> str | None:
    import fcntl
    import struct

    siocgifaddr = 0x8915
    request = struct.pack("256s", interface.encode()[:15])
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            return socket.inet_ntoa(fcntl.ioctl(probe.fileno(), siocgifaddr, request)[20:24])
    except OSError:
        return None
