"""Where this container stands: its roles, its rank, whose addresses. Nothing else reads placement variables.

Sources, first match wins: the GLM47_ settings that were given, LeaderWorkerSet's variables (`LWS_GROUP_SIZE`,
`LWS_WORKER_INDEX`, `LWS_LEADER_ADDRESS`), the topology settings, one node. With ROLE=auto in a Slurm job
the job's node list and the topology settings decide everything (`slurm`).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
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
        names=dict.fromkeys(slurm.WORKED_OUT, job.nodes_from),
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
    leader = _leader(settings.leader_address, node.rank, address)
    return replace(placed, leader_address=leader, node_address=address or node.name, unmet=tuple(unmet))


def _leader(leader: str | None, rank: int, address: str | None) -> str | None:
    """The leader's address; on the leader itself never its name, where that leads to its own loopback.

    Debian has such a line (127.0.1.1) in /etc/hosts, and Dynamo would announce the bootstrap server there.
    """
    own = socket.gethostname().partition(".")[0]
    if rank or leader is None or address is None or leader.partition(".")[0] != own:
        return leader
    try:
        found = socket.getaddrinfo(leader, None, type=socket.SOCK_STREAM)
    except OSError:
        return leader
    return address if any(is_loopback(str(entry[4][0])) for entry in found) else leader


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
        f"cannot use GLM47_INTERFACE: {interface}: it has no address here that others can reach; "
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
        leader_address=_leader(leader, rank, address),
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
    """This node's address as `peer` sees it, else as anybody outside would. None: it has none."""
    if interface is not None:
        return _interface_address(interface)
    # Connecting a datagram socket only looks up the route. The two literals are reserved for documentation
    # and stand for "anywhere outside" when there is no peer to ask for.
    for target in (peer, "192.0.2.1", "2001:db8::1"):
        if target is not None and (found := _source_address(target)) is not None:
            return found
    return None


def is_loopback(host: str) -> bool:
    """Whether `host` leads nowhere but to the machine that reads it."""
    return host.startswith("127.") or host.strip("[]") in ("::1", "localhost")


def _source_address(target: str) -> str | None:
    """The address from which a packet to `target` would leave; IPv4 first, and never a loopback."""
    try:
        found = socket.getaddrinfo(target.strip("[]"), 9, type=socket.SOCK_DGRAM)
    except OSError:
        return None
    for family, kind, protocol, _, address in sorted(found, key=lambda entry: entry[0]):
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(address)
                source = str(probe.getsockname()[0])
        except OSError:
            continue
        if not is_loopback(source):
            return source
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
        return _interface_ipv6(interface)


def _interface_ipv6(interface: str) -> str | None:
    """Its first IPv6 address that is valid beyond its link."""
    try:
        rows = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        return None
    for address, _, _, scope, _, name in map(str.split, rows):
        if name == interface and int(scope, 16) == 0:
            return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(address))
    return None
