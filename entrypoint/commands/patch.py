"""`patch list|check|apply|revert`."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

import click

from entrypoint.prepare.patches.apply import EditState

SOURCE = click.option(
    "--source",
    type=click.Path(path_type=Path),
    help="Directory that holds an sglang package; default: the one that GLM47_PYTHON would import.",
)
PYTHON = click.option(
    "--python", envvar="GLM47_PYTHON", show_envvar=True, help="The interpreter that holds sglang."
)
MODE = click.option(
    "--mode",
    type=click.Choice(["pad", "assert", "off"]),
    envvar="GLM47_MODELOPT_PATCH",
    show_envvar=True,
    default="pad",
    show_default=True,
    help="pad: right at every width; assert: the original deployment's edit; off: none.",
)
FORMAT = click.option(
    "--format", "style", type=click.Choice(["text", "json"]), default="text", help="For people or programs."
)


@click.group("patch")
def patch_group() -> None:
    """Check, make or take out the edits of the installed sglang that GLM-4.7-NVFP4 needs.

    Exit code 73 when a source is not recognised or cannot be written.
    """


@patch_group.command("list")
@FORMAT
def list_command(style: str) -> None:
    """Say which edits there are."""
    from entrypoint.prepare.patches.catalog import CATALOG

    if style == "json":
        rows = [{"edit": e.name, "path": e.path, "what": e.what, "modes": sorted(e.modes)} for e in CATALOG]
        click.echo(json.dumps(rows, indent=2))
        return
    for edit in CATALOG:
        click.echo(f"{edit.name}: {edit.what}: sglang/{edit.path}")


@patch_group.command("check")
@SOURCE
@PYTHON
@MODE
@FORMAT
def check_command(source: Path | None, python: str | None, mode: str, style: str) -> None:
    """Say of every edit whether it is applied, needed, not needed or not recognised. Changes nothing."""
    from entrypoint.errors import ExitCode
    from entrypoint.prepare.patches.apply import check_all

    states = check_all(_source(source, python), mode)  # type: ignore[arg-type]
    _show(states, style)
    if mode != "off" and any(s.state == "not recognised" for s in states):
        sys.exit(ExitCode.CANTCREAT)


@patch_group.command("apply")
@SOURCE
@PYTHON
@MODE
@click.option(
    "--where",
    type=click.Choice(["auto", "inplace", "overlay"]),
    default="inplace",
    show_default=True,
    help="In the package's files, beside them in --run-dir, or the first of these that works.",
)
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    envvar="GLM47_RUN_DIR",
    show_envvar=True,
    default="/tmp/glm47-runner",
    show_default=True,
    help="Where an overlay goes.",
)
@FORMAT
def apply_command(
    source: Path | None, python: str | None, mode: str, where: str, run_dir: Path, style: str
) -> None:
    """Make the edits that are needed. Doing it again changes nothing."""
    from entrypoint.prepare.patches.apply import apply_all

    done = apply_all(
        _source(source, python),
        modelopt=mode,  # type: ignore[arg-type]
        where=where,  # type: ignore[arg-type]
        run_dir=run_dir,
    )
    _show(done.edits, style, where=done.where, changed=list(done.changed), env=dict(done.env))


@patch_group.command("revert")
@SOURCE
@PYTHON
@FORMAT
def revert_command(source: Path | None, python: str | None, style: str) -> None:
    """Take the edits out of the package's files again."""
    from entrypoint.prepare.patches.apply import revert_all

    done = revert_all(_source(source, python))
    _show(done.edits, style, where=done.where, changed=list(done.changed))


def _source(source: Path | None, python: str | None) -> Path:
    from entrypoint.prepare.patches import sources

    return sources.installed(python, dict(os.environ), sys.prefix) if source is None else source


def _show(states: tuple[EditState, ...], style: str, **more: object) -> None:
    if style == "json":
        rows = [dataclasses.asdict(s) for s in states]
        click.echo(json.dumps({"format": 1, "edits": rows, **more}, indent=2))
        return
    for state in states:
        click.echo(state.line)
    env = more.get("env")
    if isinstance(env, dict):
        for name, value in env.items():
            click.echo(f"engine processes need {name}={value}")
