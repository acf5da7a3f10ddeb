"""Making FlashInfer usable for a plan: what `run` does before it starts the engine, and `check` tries."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from entrypoint.errors import CannotWriteError, ConfigError
from entrypoint.prepare.flashinfer import cubins, kernel_sources
from entrypoint.prepare.patches.for_plan import ENGINE_MODULE, with_env

if TYPE_CHECKING:
    from entrypoint.plan.types import Plan

WORKSPACE = "FLASHINFER_WORKSPACE_BASE"


def make_usable(plan: Plan, environ: Mapping[str, str]) -> tuple[Plan, tuple[str, ...]]:
    """The plan whose engine processes find FlashInfer as they can use it, and lines that say what was done.

    `environ` is what processes inherit. CannotWriteError (73) when FlashInfer would fail to write,
    ConfigError (78) when what it compiles could not be loaded.
    """
    wanted = plan.flashinfer
    if wanted is None:
        return plan, ()
    lines: list[str] = []
    _try_workspaces(plan, environ)
    package = Path(wanted.package)
    if wanted.cutlass and kernel_sources.directory(package) is not None:
        lines.append(_write_kernel_sources(package))
    if wanted.cubins is not None and cubins.makes_links(package):
        found = Path(wanted.cubins)
        if reason := cubins.may_write(found / cubins.CUBINS):
            place = _link_cubins(found, Path(wanted.links))
            plan = with_env(plan, {"PYTHONPATH": str(place)}, environ)
            lines.append(f"flashinfer: its cubins are linked in {place}: {found}: {reason.strerror}")
    return plan, tuple(lines)


def _try_workspaces(plan: Plan, environ: Mapping[str, str]) -> None:
    """Try to write where FlashInfer compiles; also below, where another user may have begun."""
    for process in plan.processes:
        base = process.env.get(WORKSPACE, environ.get(WORKSPACE))
        if ENGINE_MODULE not in process.argv or not base:
            continue
        try:
            Path(base).mkdir(parents=True, exist_ok=True)
            for place in (Path(base), Path(base, ".cache"), Path(base, ".cache", "flashinfer")):
                if place.is_dir():
                    with tempfile.TemporaryFile(dir=place):
                        pass
            if os.statvfs(base).f_flag & os.ST_NOEXEC:
                raise ConfigError(
                    f"cannot use {WORKSPACE}: {base}: mounted noexec: compiled kernels are loaded from "
                    "there: set GLM47_CACHE_DIR to a volume, or mount it exec (docker run --tmpfs /tmp:exec)"
                )
        except OSError as error:
            raise CannotWriteError(
                f"cannot write {WORKSPACE}: {base}: {error.strerror}: FlashInfer compiles there: give "
                f"GLM47_CACHE_DIR a directory that uid {os.getuid()} may write"
            ) from None


def _write_kernel_sources(package: Path) -> str:
    """Let FlashInfer's writer find or write the sources for this machine's GPUs, or for those of an image."""
    seen = tuple(a for a in kernel_sources.gpus() if kernel_sources.serves(package, a))
    failed: dict[str, str | None] = {}
    for generation in seen or kernel_sources.TARGETS:
        try:
            kernel_sources.write(package, generation)
        except OSError as error:
            failed[generation] = error.strerror
    wanted = seen or kernel_sources.TARGETS
    # Of GPUs that nobody can name, one generation's sources may be enough.
    if failed and (seen or len(failed) == len(wanted)):
        generations = " ".join(failed)
        raise CannotWriteError(
            f"cannot write FlashInfer's kernel sources for GPU generation {generations}: "
            f"{kernel_sources.directory(package)}: {next(iter(failed.values()))}: build the image with "
            f'--build-arg FLASHINFER_ARCHS="{generations}", or run `glm47-runner flashinfer generate '
            f"{generations}` in it as the owner of that directory"
        )
    there = ", ".join(a for a in wanted if a not in failed)
    return f"flashinfer: the sources of its CUTLASS kernels for GPU generation {there} are in its package"


def _link_cubins(package: Path, base: Path) -> Path:
    try:
        return cubins.link(package, base)
    except OSError as error:
        raise CannotWriteError(
            f"cannot link FlashInfer's cubins: {base}: {error.strerror}: give GLM47_CACHE_DIR a directory "
            f"that uid {os.getuid()} may write"
        ) from None
