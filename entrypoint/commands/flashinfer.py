"""`flashinfer generate`: what an image build calls."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from entrypoint.errors import CannotWriteError, ConfigError
from entrypoint.prepare.flashinfer import kernel_sources


@click.group("flashinfer")
def flashinfer_group() -> None:
    """Prepare the installed FlashInfer for a read-only image."""


@flashinfer_group.command("generate")
@click.argument("generations", nargs=-1, metavar="[GENERATION]...")
@click.option("--python", help="The interpreter that holds flashinfer; default: GLM47_PYTHON.")
@click.option(
    "--source",
    type=click.Path(path_type=Path),
    help="Directory of a flashinfer package; default: the one that GLM47_PYTHON would import.",
)
def generate_command(generations: tuple[str, ...], python: str | None, source: Path | None) -> None:
    """Write the kernel sources that FlashInfer before 0.6.3 writes into its package at every start.

    For GPU generations as CUDA numbers them; without any: 100 and 103, GB200 and GB300. Prints the
    directories that hold them; nothing for other releases. Exit code 73 when they cannot be written.
    """
    package = source or _installed(python)
    if not (package / "__init__.py").is_file():
        raise ConfigError(
            f"cannot use --source: {package}: no package is there: name the directory of flashinfer itself"
        )
    place = kernel_sources.directory(package)
    if place is None:
        click.echo(f"nothing to write: {package} keeps its kernel sources out of the package", err=True)
        return
    for generation in generations or kernel_sources.TARGETS:
        try:
            written = kernel_sources.write(package, generation)
        except OSError as error:
            raise CannotWriteError(
                f"cannot write FlashInfer's kernel sources: {place / generation}: {error.strerror}: "
                f"run this as the owner of {package}, where it is not read-only"
            ) from None
        click.echo(written)


def _installed(python: str | None) -> Path:
    """The flashinfer package that `python`, by default GLM47_PYTHON, would import."""
    from entrypoint.load import load_settings
    from entrypoint.node import engine

    python = python or load_settings(os.environ, Path.cwd()).settings.python
    interpreter = engine.find_python(python, os.environ, sys.prefix)
    found = engine.gather(interpreter, os.environ).flashinfer_dir if interpreter else None
    if interpreter and not found:
        found = engine.ask(interpreter).get("flashinfer_dir")
    if not found:
        raise ConfigError(
            f"cannot find flashinfer: GLM47_PYTHON: {interpreter or python or 'not set'}: it has none: "
            "name an interpreter that has, or a package with --source"
        )
    return Path(found)
