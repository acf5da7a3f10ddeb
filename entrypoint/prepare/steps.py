"""What must be there before the first process: files, the model, patched sources, FlashInfer's files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from entrypoint.errors import CannotWriteError, ModelError

if TYPE_CHECKING:
    from entrypoint.plan.types import Plan


def prepare(plan: Plan) -> None:
    """Check what must be there and correct the files that the plan names. Idempotent.

    Raises ModelError (66), CannotWriteError and PatchError (73).
    """
    write_files(plan)
    if plan.model_error:
        raise ModelError(plan.model_error)
    if plan.needs_model:
        from entrypoint.node.model import directory
        from entrypoint.prepare import model_view

        found = directory.inspect(plan.model_source, weights=plan.needs_weights)
        if found.facts.error:
            raise ModelError(found.facts.error)
        if plan.model_path != plan.model_source:
            view, bos = Path(plan.model_path), plan.bos_token_id
            model_view.prepare(plan.model_source, view, bos_token_id=bos)


def write_files(plan: Plan) -> None:
    """Write the files that a process of the plan reads. CannotWriteError (73)."""
    files = [(file.path, file.content, 0o644) for file in (plan.job.files if plan.job is not None else ())]
    files += [(file.path, file.content, 0o600) for file in plan.secret_files]
    for name, content, mode in files:
        from entrypoint.base.files import replacing

        path = Path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path, mode=mode) as made:
                made.write(content.encode())
        except OSError as error:
            raise CannotWriteError(
                f"cannot write {path}: {error.strerror}: give GLM47_RUN_DIR a directory that "
                f"uid {os.getuid()} may write"
            ) from None


def with_patched_sources(plan: Plan, environ: Mapping[str, str]) -> Plan:
    """Make the plan's source edits; the engine's processes get the variables that an overlay needs.

    Raises PatchError and CannotWriteError (73).
    """
    if plan.source_patch is None:
        return plan
    from entrypoint.prepare.patches.for_plan import patch

    plan, done = patch(plan, environ)
    lines = [f"patch {edit.line}" for edit in done.edits] if done else []
    return replace(plan, notes=(*plan.notes, *lines))


def with_flashinfer(plan: Plan, environ: Mapping[str, str]) -> Plan:
    """Let FlashInfer find what it would write into its own packages. Errors: `make_usable`'s."""
    if plan.flashinfer is None:
        return plan
    from entrypoint.prepare.flashinfer.for_plan import make_usable

    plan, lines = make_usable(plan, environ)
    return replace(plan, notes=(*plan.notes, *lines))
