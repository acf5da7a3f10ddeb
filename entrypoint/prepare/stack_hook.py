"""Laying down the hook that has an engine's Python processes tell where they stand (`hooked`)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from entrypoint.errors import CannotWriteError
from entrypoint.plan.run_files import STACK_HOOK
from entrypoint.prepare import hooked
from entrypoint.prepare.patches.for_plan import ENGINE_MODULE, with_env

if TYPE_CHECKING:
    from entrypoint.plan.types import Plan


def hook(plan: Plan, environ: Mapping[str, str], runner: int) -> Plan:
    """The plan whose engine processes have the hook; as it is where none runs SGLang.

    `environ` is what processes inherit, `runner` our process. CannotWriteError (73).
    """
    if not any(ENGINE_MODULE in process.argv for process in plan.processes):
        return plan
    place = Path(plan.run_dir).absolute() / STACK_HOOK
    try:
        shutil.rmtree(place, ignore_errors=True)  # of an earlier run
        (place / "site").mkdir(parents=True)
        (place / "runner").write_text(f"{runner}\n")
        (place / "site" / "sitecustomize.py").write_bytes(Path(hooked.__file__).read_bytes())
    except OSError as error:
        raise CannotWriteError(
            f"cannot write {place}: {error.strerror}: give GLM47_RUN_DIR a directory that uid {os.getuid()} "
            "may write"
        ) from None
    return with_env(plan, {"PYTHONPATH": str(place / "site")}, environ)
