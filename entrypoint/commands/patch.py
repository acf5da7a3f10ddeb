"""`patch list|check|apply|revert`. What no option gives is taken from the settings, as `plan` does."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from entrypoint.prepare.patches.apply import EditState, Where
from entrypoint.prepare.patches.catalog import Mode

if TYPE_CHECKING:
    from entrypoint.settings.schema import Settings

SOURCE = click.option(
    "--source",
    type=click.Path(path_type=Path),
    help="Directory that holds an sglang package; default: the one that GLM47_PYTHON would import.",
)
PYTHON = click.option("--python", help="The interpreter that holds sglang; default: GLM47_PYTHON.")
MODE = click.option(
    "--mode",
    type=click.Choice(["pad", "assert", "off"]),
    help="pad: right at every width; assert: the original deployment's edit; off: none; "
    "default: GLM47_MODELOPT_PATCH.",
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
def check_command(source: Path | None, python: str | None, mode: Mode | None, style: str) -> None:
    """Say of every edit whether it is applied, needed, not needed or not recognised. Changes nothing."""
    from entrypoint.errors import ExitCode
    from entrypoint.prepare.patches.apply import check_all

    settings = _settings()
    mode = mode or settings.modelopt_patch
    states = check_all(_source(source, python or settings.python), mode)
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
    help="In the package's files, beside them in --run-dir, or the first of these that works; "
    "default: GLM47_PATCH_MODE where it is given, else inplace.",
)
@click.option(
    "--run-dir", type=click.Path(path_type=Path), help="Where an overlay goes; default: GLM47_RUN_DIR."
)
@FORMAT
def apply_command(
    source: Path | None,
    python: str | None,
    mode: Mode | None,
    where: Where | None,
    run_dir: Path | None,
    style: str,
) -> None:
    """Make the edits that are needed. Doing it again changes nothing."""
    from entrypoint.prepare.patches.apply import apply_all

    settings = _settings()
    given = settings.patch_mode if "patch_mode" in settings.model_fields_set else "inplace"
    done = apply_all(
        _source(source, python or settings.python),
        modelopt=mode or settings.modelopt_patch,
        where=where or given,
        run_dir=run_dir or Path(settings.run_dir),
        environ=os.environ,
    )
    _show(done.edits, style, where=done.where, changed=list(done.changed), env=dict(done.env))


@patch_group.command("revert")
@SOURCE
@PYTHON
@FORMAT
def revert_command(source: Path | None, python: str | None, style: str) -> None:
    """Take the edits out of the package's files again."""
    from entrypoint.prepare.patches.apply import revert_all

    done = revert_all(_source(source, python or _settings().python))
    _show(done.edits, style, where=done.where, changed=list(done.changed))


def _settings() -> Settings:
    """The settings that `plan` uses; ConfigError (78) when one of them is wrong."""
    from entrypoint.load import load_settings

    return load_settings(os.environ, Path.cwd()).settings


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
