"""The command `diagnose`: thin, as all of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from entrypoint.base.printable import clean

FILE = click.Path(path_type=Path)


@click.command("diagnose")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--bundle", type=FILE, metavar="FILE.tar.gz", help="Write a support bundle without secrets.")
@click.option("--delta", is_flag=True, help="What differs between two bundles or log directories.")
@click.argument("places", type=FILE, metavar="LOGDIR [LOGDIR]", nargs=-1, required=True)
def diagnose_command(as_json: bool, bundle: Path | None, delta: bool, places: tuple[Path, ...]) -> None:
    """Name the first cause of a dead job from the logs in LOGDIR, what is known about it, and what to do.

    LOGDIR is what GLM47_LOG_DIR named, a Slurm job's log directory, one of Dynamo's scripts for Slurm, or a
    file with a container's output. Works anywhere: nothing but these files is read.
    """
    from entrypoint.commands.diagnose import logs, report

    if len(places) != (2 if delta else 1):
        raise click.UsageError("--delta takes two bundles or log directories; else there is one LOGDIR")
    if delta:
        from entrypoint.commands.diagnose import delta as differences

        lines = [clean(line) for line in differences.delta(*places)]
        click.echo("\n".join(lines) if lines else "no difference")
        return
    found = logs.diagnose(places[0])
    click.echo(json.dumps(logs.as_json(found), indent=2) if as_json else report.text(found))
    if bundle is not None:
        from entrypoint.commands.diagnose import bundle as bundles

        count = bundles.write(places[0], bundle, os.environ)
        click.echo(
            f"{bundle}: {count} files, without secrets as far as they can be told: look before you send it",
            err=True,
        )
