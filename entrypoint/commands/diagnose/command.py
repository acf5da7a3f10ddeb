"""The command `diagnose`: thin, as all of them."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("diagnose")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.argument("place", type=click.Path(path_type=Path), metavar="LOGDIR")
def diagnose_command(as_json: bool, place: Path) -> None:
    """Name the first cause of a dead job from the logs in LOGDIR, what is known about it, and what to do.

    LOGDIR is what GLM47_LOG_DIR named, a Slurm job's log directory, one of Dynamo's scripts for Slurm, or a
    file with a container's output. Works anywhere: nothing but these files is read.
    """
    from entrypoint.commands.diagnose import logs, report

    found = logs.diagnose(place)
    click.echo(json.dumps(logs.as_json(found), indent=2) if as_json else report.text(found))
