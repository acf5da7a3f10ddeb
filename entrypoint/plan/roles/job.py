"""What a container plans as one of several nodes: peers, the order of stops over them; a job's nginx."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from entrypoint.plan.context import Context, Part
from entrypoint.plan.diagnostics import Diagnostics, problem
from entrypoint.plan.endpoint import ANY, Endpoint
from entrypoint.plan.roles import shared_node
from entrypoint.plan.roles.endpoints import health
from entrypoint.plan.stop_budget import HOLD_MARGIN, shares
from entrypoint.plan.types import JobPlan, Peer, PlannedFile

if TYPE_CHECKING:
    from entrypoint.node.topology import Node


def nginx(ctx: Context) -> tuple[Part, PlannedFile] | None:
    """nginx and its configuration; None where this node does not have it."""
    if "nginx" not in ctx.roles or ctx.placement.job is None:
        return None
    from entrypoint.plan.roles import nginx as role

    return role.nginx(ctx, ctx.placement.job.topology.frontends)


def job(
    ctx: Context, processes: tuple[str, ...], files: tuple[PlannedFile, ...], ports: Sequence[Endpoint]
) -> tuple[JobPlan | None, Diagnostics]:
    """The plan's part for other nodes, around `processes`, the `files` they read and their `ports`.

    None where nothing says who they are.
    """
    found, s = ctx.placement.job, ctx.settings
    if found is None:
        return _group(ctx) if len(ctx.placement.group) > 1 and ctx.worker_roles else (None, ())
    from entrypoint.node import slurm
    from entrypoint.node.job_ports import shift

    node, topology = found.node, found.topology
    after = {name: pairs for name in processes if (pairs := slurm.stops_after(found, name))}
    watched = slurm.neighbours(found)
    asked = {peer for pairs in after.values() for peer, _ in pairs} - {other.id for other in watched}
    own = health(s)

    def peer(other: Node, *, watch: bool) -> Peer:
        # By its own name, whatever address it listens on; a node's further workers have ports of their own.
        there = replace(own, host=ANY, number=own.number - shift(node.slot) + shift(other.slot))
        return Peer(other.id, other.label, there.url_from_outside(other.name), watch)

    about = _can_be_asked(own) if watched or asked else ()
    if node.rank > 0:
        # As long as its leader, which may wait for frontends and drain after them.
        hold = ctx.stop.drain("worker")
    else:
        # Until a frontend on any node has ended, with the same budget.
        hold = shares(s.stop_timeout, ("frontend", "worker", "server")).gone("frontend")
    made = JobPlan(
        number=found.number,
        node=node.id,
        what=node.label,
        head=node is topology.head,
        api_url=ctx.api.entry.url_from_outside(topology.head.name),
        peers=(
            *(peer(other, watch=True) for other in watched),
            *(peer(topology.node(name), watch=False) for name in sorted(asked)),
        ),
        peer_timeout=s.start_timeout,
        stops_after=after,
        stop_hold=hold + HOLD_MARGIN,
        log_names=slurm.log_names(found, processes),
        files=files,
        others=tuple(peer(other, watch=False) for other in topology.nodes if other is not node)
        if node is topology.head
        else (),
        shared_dir=ctx.shared_dir if node.slot else None,
    )
    return made, (*about, *shared_node.check_ports(node, topology, ports))


def _can_be_asked(own: Endpoint) -> Diagnostics:
    if not own.only_here:
        return ()
    why = (
        f"cannot use GLM47_HEALTH_HOST: {own.host}: the runners of the job's other nodes ask this one "
        "there, and so it does them: use 0.0.0.0"
    )
    return (problem(why),)


def _group(ctx: Context) -> tuple[JobPlan, Diagnostics]:
    """A worker's ranks that a controller started together: a leader and its followers watch each other."""
    place, own = ctx.placement, health(ctx.settings)
    (role,) = ctx.worker_roles
    names = [address.partition(".")[0] for address in place.group]

    def peer(rank: int) -> Peer:
        url = replace(own, host=ANY).url_from_outside(place.group[rank])
        return Peer(names[rank], f"{role} worker rank {rank}", url)

    leader = place.node_rank == 0
    made = JobPlan(
        number=None,
        node=names[place.node_rank],
        what=f"{role} worker rank {place.node_rank}",
        head=False,
        api_url=None,
        peers=tuple(map(peer, range(1, len(names)))) if leader else (peer(0),),
        peer_timeout=ctx.settings.start_timeout,
        stops_after={} if leader else {role: ((names[0], role),)},
        stop_hold=ctx.stop.drain("worker") + HOLD_MARGIN,
        log_names={},
        others=tuple(map(peer, range(1, len(names)))) if leader else (),
    )
    return made, _can_be_asked(own)
