"""The command `diagnose`: thin, as all of them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from entrypoint.base.printable import clean

if TYPE_CHECKING:
    from entrypoint.commands.diagnose.live import Node

FILE = click.Path(path_type=Path)


@click.command("diagnose")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option(
    "--bundle",
    type=FILE,
    metavar="FILE.tar.zst",
    help="Write a support bundle without secrets; also .tar.gz.",
)
@click.option("--delta", is_flag=True, help="What differs between two bundles or log directories.")
@click.argument("places", metavar="LOGDIR | HOST[:PORT]...", nargs=-1, required=True)
def diagnose_command(as_json: bool, bundle: Path | None, delta: bool, places: tuple[str, ...]) -> None:
    """Name the first cause of a dead job from the logs in LOGDIR, what is known about it, and what to do.

    LOGDIR is what GLM47_LOG_DIR named, a Slurm job's log directory, one of Dynamo's scripts for Slurm, or a
    file with a container's output. Works anywhere: nothing but these files is read.

    HOST[:PORT]: a runner's health port. What a living deployment's runners know is fetched and judged
    alike; the first node of a Slurm job knows all others, else name each.
    """
    if delta:
        from entrypoint.commands.diagnose import delta as differences

        if len(places) != 2:
            raise click.UsageError("--delta takes two bundles or log directories")
        lines = [clean(line) for line in differences.delta(*map(Path, places))]
        click.echo("\n".join(lines) if lines else "no difference")
        return
    if bundle is not None:
        from entrypoint.commands.diagnose import archive

        archive.must_be_known(bundle)
    if not any(_is_path(place) for place in places):
        _live(places, as_json, bundle)
    elif len(places) == 1:
        _of(Path(places[0]), as_json, bundle)
    else:
        raise click.UsageError("give one LOGDIR, or HOST[:PORT] of runners; --delta takes two")


def _is_path(place: str) -> bool:
    """A name without a slash that no file has is a host's."""
    return Path(place).exists() or ("/" in place and "://" not in place)


def _live(hosts: Sequence[str], as_json: bool, bundle: Path | None) -> None:
    import tempfile

    from entrypoint.commands import status
    from entrypoint.commands.diagnose import live

    urls = [status.remote_url(host, os.environ, Path.cwd()) for host in hosts]
    nodes = live.ask_all(urls, status.token(os.environ, Path.cwd()))
    with tempfile.TemporaryDirectory(prefix="glm47-") as name:
        live.lay_down(nodes, Path(name))
        _of(Path(name), as_json, bundle, nodes)


def _of(directory: Path, as_json: bool, bundle: Path | None, nodes: Sequence[Node] = ()) -> None:
    from entrypoint.commands.diagnose import live, logs, report, sources

    found = logs.of_logs(sources.read(directory), lambda ahead: live.findings(nodes, ahead))
    now = live.now(nodes) if nodes else []
    if as_json:
        click.echo(json.dumps(logs.as_json(found) | ({"now": now} if nodes else {}), indent=2))
    else:
        click.echo("\n".join([report.text(found), *now]))
    if bundle is not None:
        from entrypoint.commands.diagnose import bundle as bundles

        count = bundles.write(directory, bundle, os.environ, found)
        click.echo(
            f"{bundle}: {count} files, without secrets as far as they can be told: look before you send it",
            err=True,
        )
