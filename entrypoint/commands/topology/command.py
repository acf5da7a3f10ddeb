"""`topology`: who would be where on a list of nodes, without Slurm and without the nodes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from entrypoint.commands.topology import show
from entrypoint.errors import ConfigError
from entrypoint.node import in_slurm, job_ports, nodelist, topology
from entrypoint.plan import arguments

if TYPE_CHECKING:
    from entrypoint.settings.schema import Settings

FIELDS = (
    "prefill_workers", "prefill_nodes", "prefill_workers_per_node", "decode_workers", "decode_nodes",
    "decode_workers_per_node", "frontends", "nvlink_domain_size", "gpus_per_node",
)  # fmt: skip
"""Settings that an option of the same name overrides; `nginx` is a flag besides."""


@click.command("topology")
@click.option("--nodelist", "text", metavar="LIST", help="Nodes as Slurm writes them: 'nvl72d[001-018]'.")
@click.option("--nodes", type=click.IntRange(min=1), help="Instead of a list: that many made-up nodes.")
@click.option("--job-id", type=click.IntRange(min=0), help="Show the ports that the job of this number has.")
@click.option("--prefill-workers", type=click.IntRange(min=0), help="Prefill workers; 0: aggregated ones.")
@click.option("--prefill-nodes", type=click.IntRange(min=1), help="Nodes of each prefill worker.")
@click.option("--decode-workers", type=click.IntRange(min=0), help="Decode workers; 0: as many as fit.")
@click.option("--decode-nodes", type=click.IntRange(min=1), help="Nodes of each decode or aggregated worker.")
@click.option("--prefill-workers-per-node", type=click.IntRange(min=1), help="Prefill workers on a node.")
@click.option("--decode-workers-per-node", type=click.IntRange(min=1), help="Decode workers on a node.")
@click.option("--frontends", type=click.IntRange(min=1), help="Frontends, on nodes of their own.")
@click.option("--nginx/--no-nginx", default=None, help="nginx in front of the frontends.")
@click.option("--nvlink-domain-size", type=click.IntRange(min=0), help="Nodes of one NVLink domain.")
@click.option("--gpus-per-node", type=click.IntRange(min=1), help="GPUs of one node.")
@click.option(
    "--format", "style", type=click.Choice(["text", "json"]), default="text", help="How to show it."
)
def topology_command(
    text: str | None,
    nodes: int | None,
    job_id: int | None,
    nginx: bool | None,
    style: str,
    **given: int | None,
) -> None:
    """Show which node of a list would hold which worker rank, which servers, and which ports.

    Options left out come from the settings (GLM47_PREFILL_WORKERS and so on), the node list from
    SLURM_JOB_NODELIST. Ports are the settings'; with --job-id they are those of a Slurm job.
    """
    from entrypoint.settings.load import load

    loaded = load(os.environ, Path.cwd())
    settings = loaded.settings
    values: dict[str, Any] = {name: getattr(settings, name) for name in FIELDS}
    values |= {name: value for name, value in given.items() if value is not None}
    size_given = "nvlink_domain_size" in settings.model_fields_set or given["nvlink_domain_size"] is not None
    found = topology.lay_out(
        _nodes(text, nodes),
        nginx=settings.nginx if nginx is None else nginx,
        nvlink_size_given=size_given,
        nvlink_domains=settings.nvlink_domains,
        **values,
    )
    _check_layout(settings.model_copy(update=values), loaded.native, found)
    if job_id is not None:
        shared = job_ports.job_ports(job_id)
        own = {name: port for name, port in shared.items() if name not in settings.model_fields_set}
        settings = settings.model_copy(update=own)
    listeners = _listeners(settings, loaded.native, found)
    if style == "json":
        click.echo(json.dumps(show.as_data(found, listeners), indent=2))
    else:
        click.echo(show.as_text(found, listeners), nl=False)
    for line in found.warnings:
        click.echo(f"warning: {line}", err=True)


def _listeners(settings: Settings, native: Mapping[str, str], found: topology.Topology) -> show.Listeners:
    """Where everything of the deployment would listen. ConfigError with every port that cannot be used."""
    from entrypoint.plan.roles import endpoints, etcd, nats, rank

    api = endpoints.api(settings, native, behind_nginx=found.nginx)
    system, _, problems = endpoints.system(settings, native)
    given = {role: rank.extra(settings, role) for role in dict.fromkeys(node.role for node in found.nodes)}
    dist_init = {role: endpoints.dist_init(settings, options) for role, options in given.items()}
    bootstrap = endpoints.bootstrap(settings, given.get("prefill", arguments.Options()))
    problems += [
        *api.problems,
        *bootstrap[2],
        *(line for _, _, lines in dist_init.values() for line in lines),
    ]
    if problems:
        raise ConfigError(problems)
    return show.Listeners(
        url=api.entry.url_from_outside(found.head.name),
        numbers={
            "health": settings.health_port,
            "nginx": api.entry.number,
            "frontend": api.frontend.number,
            "etcd": settings.etcd_port,
            "etcd peer": settings.etcd_peer_port,
            "nats": settings.nats_port,
            "nats monitor": settings.nats_monitor_port,
            "engine": system,
        },
        bootstrap=bootstrap[0],
        dist_init={role: number for role, (number, _, _) in dist_init.items()},
        schemes=(etcd.scheme(settings), nats.scheme(settings)),
    )


def _check_layout(settings: Settings, native: Mapping[str, str], found: topology.Topology) -> None:
    """Refuse workers that do not fit together (docs/layouts.md), as `run` would."""
    from entrypoint.node import inspect
    from entrypoint.plan.diagnostics import Level, texts
    from entrypoint.plan.roles import kv_layout

    if not found.disaggregated:
        return
    about = kv_layout.of_topology(settings, found, inspect.gather(settings, os.environ), native)
    if wrong := texts(about, Level.PROBLEM):
        raise ConfigError(wrong)
    for line in texts(about, Level.WARNING):
        click.echo(f"warning: {line}", err=True)


def _nodes(text: str | None, count: int | None) -> tuple[str, ...]:
    if count is not None:
        if text is not None:
            raise ConfigError(f"cannot use --nodes: {count}: --nodelist is given too: leave one of them out")
        return tuple(f"node{index:0{len(str(count))}}" for index in range(1, count + 1))
    source = "--nodelist" if text is not None else "SLURM_JOB_NODELIST"
    text = in_slurm.node_list(os.environ) if text is None else text
    if text is None:
        raise ConfigError(
            "cannot lay out the deployment: no nodes are named: give --nodelist 'nvl72d[001-006]', "
            "or --nodes 6"
        )
    try:
        return nodelist.expand(text)
    except ValueError as error:
        raise ConfigError(
            f"cannot read {source}: {text}: {error}: write it as Slurm does, such as 'nvl72d[001-018]'"
        ) from None
