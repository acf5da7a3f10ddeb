"""`check --all`: every node of a Slurm job looks at itself, and the head says what that means for the job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import click

from entrypoint.commands.check.across import Report, Together, render, together
from entrypoint.commands.check.command import Checked, look
from entrypoint.commands.check.exchange import Head, send
from entrypoint.commands.check.findings import render as render_findings
from entrypoint.errors import ConfigError, ExitCode
from entrypoint.node import slurm
from entrypoint.plan.endpoint import ANY


def check_all(environ: Mapping[str, str], cwd: Path, style: str, wait: float) -> int:
    """This node's part; on the head the table besides, once all have reported or `wait` seconds are over.

    The head's exit code is the first problem's of the worst node; another node's is 0 once the head has its
    report.
    """
    from dataclasses import replace

    from entrypoint.load import in_slurm_job, load_settings
    from entrypoint.plan.roles.endpoints import health

    settings = load_settings(environ, cwd).settings
    if not in_slurm_job(environ, settings):
        raise ConfigError(
            "cannot check all nodes: this is no task of a Slurm job with ROLE=auto: run it with srun, "
            "one task on each node"
        )
    job = slurm.job_of(environ, settings)
    own, head = health(settings), settings.head_address or job.topology.head.name
    names = [*job.topology.names]
    if job.node.slot:
        return 0  # the node's first task looks at all of it
    if job.node is not job.topology.head:
        checked = look(environ, cwd)
        url = replace(own, host=ANY).url_from_outside(head)
        why = send(url, report_of(job.node.name, checked), wait)
        if why is None:
            return 0
        click.echo(f"cannot reach the head: {url}: {why}: here is what {job.node.name} found", err=True)
        click.echo(render_findings(checked.findings))
        return next((f.exit_code for f in checked.findings if f.exit_code), int(ExitCode.UNAVAILABLE))
    checked = look(environ, cwd)  # before the port is taken, which is one of those that are looked at
    listening = Head(own.host, own.number, names)
    listening.add(replace(report_of(job.node.name, checked), clock=0.0))
    listening.wait(wait)
    found = together([*listening.reports.values()], job.topology, wait)
    click.echo(json.dumps(jsonable(found), indent=2) if style == "json" else render(found))
    return found.exit_code


def report_of(node: str, checked: Checked) -> Report:
    """What the others have to know of this node."""
    machine = checked.machine
    seen = (machine.gpus.seen if machine.gpus is not None else None) or ()
    here = [gpu for gpu in seen if gpu.lost is None]
    cliques = {
        (g.fabric.cluster, g.fabric.clique) for g in here if g.fabric and g.fabric.state == "completed"
    }
    read = machine.read
    return Report(
        node,
        tuple(checked.findings),
        gpus=None if machine.gpus is None else len(here) if seen else machine.gpus.files,
        gpu_names=tuple(sorted({gpu.name for gpu in here})),
        driver=machine.gpus.driver if machine.gpus is not None else None,
        cliques=tuple(sorted(cliques)),
        adapters=None if machine.adapters is None else sum(hca.active for hca in machine.adapters.seen),
        rate=None if read is None or read.error is not None else read.rate,
    )


def jsonable(found: Together) -> dict[str, object]:
    """The whole of it for programs."""
    return {
        "nodes": [
            {"holds": found.holds.get(r.node), "problems": r.problems, **asdict(r)} for r in found.reports
        ],
        "exclude": list(found.exclude),
        "nvlink_domains": found.domains,
        "exit_code": found.exit_code,
    }
