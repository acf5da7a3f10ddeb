"""Carrying out the source edits of a plan: what `run` calls before it starts the engine."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from entrypoint.prepare.patches.apply import Applied, Where, apply_all
from entrypoint.prepare.patches.catalog import Mode

if TYPE_CHECKING:
    from entrypoint.plan.types import Plan

ENGINE_MODULE = "dynamo.sglang"


def patch(plan: Plan, environ: Mapping[str, str]) -> tuple[Plan, Applied | None]:
    """Make the plan's source edits, and return the plan whose engine processes see them.

    `environ` is what processes inherit; its PYTHONPATH, or a process's own, is kept behind an overlay's.
    None in place of Applied: the plan asks for no edit. PatchError and CannotWriteError (73) as `apply_all`.
    """
    wanted = plan.source_patch
    if wanted is None:
        return plan, None
    done = apply_all(
        Path(wanted.source_dir),
        modelopt=cast(Mode, wanted.modelopt),
        where=cast(Where, wanted.where),
        run_dir=Path(plan.run_dir),
        environ={},
    )
    return (with_env(plan, done.env, environ) if done.env else plan), done


def with_env(plan: Plan, env: Mapping[str, str], environ: Mapping[str, str]) -> Plan:
    """`plan` with `env` in its engine processes, each one's PYTHONPATH kept behind ours."""
    processes = []
    for process in plan.processes:
        if ENGINE_MODULE in process.argv:
            own = process.env.get("PYTHONPATH", environ.get("PYTHONPATH", ""))
            path = os.pathsep.join([env["PYTHONPATH"], *([own] if own else [])])
            process = dataclasses.replace(process, env={**process.env, **env, "PYTHONPATH": path})
        processes.append(process)
    return dataclasses.replace(plan, processes=tuple(processes))
