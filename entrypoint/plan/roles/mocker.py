"""Dynamo's mocker as the engine: the whole stack without a GPU."""

from __future__ import annotations

from pathlib import PurePosixPath

from entrypoint.plan import arguments
from entrypoint.plan.context import Context

VIEWS = "model"
"""Directory of corrected model views in GLM47_RUN_DIR."""


def directory(ctx: Context) -> str:
    """Where the mocker and the frontend must run.

    Dynamo 0.8.1's mocker registers the model's *name* as its source, and the frontend reads that as a path:
    it finds the model when both run where a directory of that name lies.
    """
    return str(PurePosixPath(ctx.shared_dir, VIEWS))


def options(ctx: Context, role: str) -> arguments.Options:
    """The mocker's options before the person's own."""
    words: list[str | tuple[str, str]] = [
        ("--model-path", ctx.model_path),
        ("--model-name", ctx.settings.served_model_name),
    ]
    if role == "prefill":
        words += ["--is-prefill-worker", ("--bootstrap-ports", str(ctx.settings.bootstrap_port))]
    elif role == "decode":
        words.append("--is-decode-worker")
    return arguments.planned(*words)
