"""Files: the tokenizer and the plans that are read, and the directory of the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from entrypoint.base.foreign import from_json
from entrypoint.errors import CannotWriteError, ConfigError, ModelError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")
"""Any of them makes a directory one with a tokenizer."""


def find_tokenizer(given: str | None, model_path: str, runners: list[dict[str, Any]]) -> str:
    """A directory with the model's tokenizer.

    `given` as it is; else the first that exists here of the deployment's model directories and `model_path`.
    Raises ModelError (66).
    """
    candidates = [model_path]
    if given is not None:
        candidates = [given]
    else:
        plans = [runner["plan"] for runner in runners if runner.get("reached")]
        candidates = [
            str(plan[key]) for plan in plans for key in ("model_source",) if plan.get(key)
        ] + candidates
    for candidate in candidates:
        path = Path(candidate).absolute()
        if any((path / name).is_file() for name in TOKENIZER_FILES):
            return str(path)
    raise ModelError(
        f"cannot find the model's tokenizer: {', '.join(dict.fromkeys(candidates))}: give a directory that "
        "holds tokenizer.json and tokenizer_config.json with --tokenizer, or set GLM47_MODEL_PATH"
    )


def read_plans(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Plans as `glm47-runner plan --format json` prints them, in the form of `server.deployment`.

    Raises ConfigError (78) for a file that is none.
    """
    found = []
    for file in files:
        try:
            plan = from_json(file.read_text(encoding="utf-8"))
            found.append({
                "address": str(file), "reached": True, "runner": None, "roles": plan["roles"],
                "rank": plan.get("rank"), "nnodes": plan.get("nnodes"), "plan": plan,
            })  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not a plan"
            raise ConfigError(
                f"cannot read --plan: {file}: {why}: give what `glm47-runner plan --format json` prints"
            ) from None
    return found


def make_directory(path: Path) -> Path:
    """Make the report's directory. CannotWriteError (73) when it cannot be, or has something in it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise CannotWriteError(f"cannot write the report: {path}: it is not empty: give another --output")
        (path / "aiperf").mkdir()
    except OSError as error:
        raise CannotWriteError(
            f"cannot write the report: {path}: {error.strerror}: set --output or GLM47_BENCH_DIR to a "
            "directory that can be written"
        ) from None
    return path.absolute()
