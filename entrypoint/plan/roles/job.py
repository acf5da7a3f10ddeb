"""What a container plans as one node of a Slurm job: nginx, its peers, the order of stops over all nodes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from entrypoint.plan.context import Context, Part
from entrypoint.plan.diagnostics import Diagnostics, problem
from entrypoint.plan.endpoint import ANY
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
    ctx: Context, processes: tuple[str, ...], files: tuple[PlannedFile, ...]
) -> tuple[JobPlan | None, Diagnostics]:
    """The job's part of the plan, around `processes` and the `files` they read. None outside of Slurm."""
    found, s = ctx.placement.job, ctx.settings
    if found is None:
        return None, ()
    from entrypoint.node import slurm

    node, topology = found.node, found.topology
    after = {name: pairs for name in processes if (pairs := slurm.stops_after(found, name))}
    watched = slurm.neighbours(found)
    asked = {peer for pairs in after.values() for peer, _ in pairs} - {other.name for other in watched}

    def peer(other: Node, *, watch: bool) -> Peer:
        # By its own name, whatever address it listens on.
        url = replace(own, host=ANY).url_from_outside(other.name)
        return Peer(other.name, other.label, url, watch)

    own = health(s)
    about: Diagnostics = ()
    if own.only_here and (watched or asked):
        why = (
            f"cannot use GLM47_HEALTH_HOST: {own.host}: the runners of the job's other nodes ask this one "
            "there, and so it does them: use 0.0.0.0"
        )
        about = (problem(why),)
    if node.rank > 0:
        # As long as its leader, which may wait for frontends and drain after them.
        hold = ctx.stop.drain("worker")
    else:
        # Until a frontend on any node has ended, with the same budget.
        hold = shares(s.stop_timeout, ("frontend", "worker", "server")).gone("frontend")
    made = JobPlan(
        number=found.number,
        node=node.name,
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
    )
    return made, about
