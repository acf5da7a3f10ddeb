"""What a container plans as one node of a Slurm job: nginx, its peers, the order of stops over all nodes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from entrypoint.plan.context import Context, Part
from entrypoint.plan.endpoint import ANY
from entrypoint.plan.roles.endpoints import health
from entrypoint.plan.stop_budget import HOLD_MARGIN, shares
from entrypoint.plan.types import JobPlan, Peer

if TYPE_CHECKING:
    from entrypoint.node.topology import Node


def job(ctx: Context, parts: list[Part]) -> JobPlan | None:
    """The job's part of the plan; adds nginx to `parts` where this node has it. None outside of Slurm."""
    found, s = ctx.placement.job, ctx.settings
    if found is None:
        return None
    from entrypoint.node import slurm
    from entrypoint.plan.roles import nginx

    node, topology = found.node, found.topology
    files = []
    if "nginx" in ctx.roles:
        part, config = nginx.nginx(ctx, topology.frontends)
        parts.append(part)
        files.append(config)
    processes = tuple(part.process.name for part in parts)
    after = {name: pairs for name in processes if (pairs := slurm.stops_after(found, name))}
    watched = slurm.neighbours(found)
    asked = {peer for pairs in after.values() for peer, _ in pairs} - {other.name for other in watched}

    def peer(other: Node, *, watch: bool) -> Peer:
        # By its own name, whatever address it listens on.
        url = replace(own, host=ANY).url_from_outside(other.name)
        return Peer(other.name, other.label, url, watch)

    own = health(s)
    if own.only_here and (watched or asked):
        ctx.book.problems.append(
            f"cannot use GLM47_HEALTH_HOST: {own.host}: the runners of the job's other nodes ask this one "
            "there, and so it does them; use 0.0.0.0"
        )

    if node.rank > 0:
        # As long as its leader, which may wait for frontends and drain after them.
        hold = ctx.stop.drain("worker")
    else:
        # Until a frontend on any node has ended, with the same budget.
        hold = shares(s.stop_timeout, ("frontend", "worker", "server")).gone("frontend")
    return JobPlan(
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
        files=tuple(files),
    )
