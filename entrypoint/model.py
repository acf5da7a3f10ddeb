"""What the model directory says of itself, and what is wrong with it. Reads only."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from entrypoint import model_weights
from entrypoint.errors import ModelError
from entrypoint.facts import ModelFacts
from entrypoint.model_view import PrepareResult, corrected, make_view, view_path

__all__ = ["Inspection", "PrepareResult", "check", "inspect", "prepare", "read_facts", "view_path"]

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
ARCHITECTURE = "Glm4MoeForCausalLM"

_NUMBERS = {
    "experts": "n_routed_experts",
    "layers": "num_hidden_layers",
    "hidden_size": "hidden_size",
    "moe_intermediate_size": "moe_intermediate_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
}


@dataclass(frozen=True)
class Inspection:
    """A model directory as found."""

    path: str
    problems: tuple[str, ...] = ()
    """Why it cannot be used; each one line in the voice of errors."""
    warnings: tuple[str, ...] = ()
    config: dict[str, Any] | None = None
    generation_config: dict[str, Any] | None = None
    """None: there is no such file, or it cannot be read (then there is a problem)."""
    facts: ModelFacts = field(default_factory=ModelFacts)


def inspect(path: str, *, weights: bool = True) -> Inspection:
    """Look at the model directory `path`, and with `weights` at its weight files' sizes and headers.

    Never raises for what the directory holds.
    """
    unusable = _directory_problem(path)
    if unusable:
        return _failed(Inspection(path), [unusable])
    directory = Path(path)
    problems: list[str] = []
    config = _read_object(directory / CONFIG, problems, required=True)
    generation = _read_object(directory / GENERATION_CONFIG, problems, required=False)
    facts = ModelFacts(
        config_read=config is not None,
        needs_bos_fix=not any(_has_bos(data) for data in (generation, config)),
    )
    numbers: dict[str, Any] = _numbers(directory, config or {}, problems)
    facts = replace(facts, **numbers)
    try:
        found = model_weights.problems(directory) if weights else []
        problems += [_problem(f"{path}/{text}", "fetch the model's files again") for text in found]
        warnings = _warnings(directory, config)
    except OSError as error:
        problems.append(_problem(f"{path}: {model_weights.reason(error)}", "make it readable"))
        warnings = []
    return _failed(Inspection(path, (), tuple(warnings), config, generation, facts), problems)


def read_facts(path: str, *, weights: bool = False) -> ModelFacts:
    """What the planner needs to know of the model at `path`. Never raises: `error` says what is wrong.

    `weights`: look at the weight files too; that is `check`'s work, which `run` does once.
    """
    return inspect(path, weights=weights).facts


def check(path: str, *, weights: bool = True) -> list[str]:
    """Every problem of the model at `path`, one line each; empty when it can be used.

    `weights=False` leaves out the weight files: the mocker engine reads none.
    """
    return list(inspect(path, weights=weights).problems)


def prepare(
    source: str, view: Path, *, bos_token_id: int, force_view: bool = True, weights: bool = False
) -> PrepareResult:
    """Make `view`: a directory of links to the files of `source`, beside a generation_config.json that
    has `bos_token_id` where the model lacks it. `source` is never written; doing it again changes nothing.

    With `force_view=False` a model that needs no correction gets no view: the result's path is `source`.
    `weights`: look at the weight files first, as `check` does.
    Raises ModelError (66) when the model cannot be used, CannotWriteError (73) when the view cannot be made.
    """
    found = inspect(source, weights=weights)
    if found.facts.error:
        raise ModelError(found.facts.error)
    fix = found.facts.needs_bos_fix
    if not fix and not force_view:
        return PrepareResult(source, changed=False, is_view=False, warnings=found.warnings)
    text = corrected(found.generation_config, found.config or {}, bos_token_id) if fix else None
    changed = make_view(source, view, {} if text is None else {GENERATION_CONFIG: text})
    return PrepareResult(str(view), changed=changed, is_view=True, warnings=found.warnings)


def _failed(found: Inspection, problems: list[str]) -> Inspection:
    if not problems:
        return found
    more = f" (and {len(problems) - 1} more: see glm47-runner model check)" if len(problems) > 1 else ""
    facts = replace(found.facts, error=problems[0] + more, needs_bos_fix=False)
    return replace(found, problems=tuple(problems), facts=facts)


def _problem(what: str, remedy: str) -> str:
    return f"cannot use the model: {what}: {remedy}"


def _directory_problem(path: str) -> str | None:
    setting = f"GLM47_MODEL_PATH={path}"
    remedy = "set GLM47_MODEL_PATH to the directory that holds the model's config.json"
    if not path.startswith("/"):
        return _problem(f"{setting} is not an absolute path", remedy)
    try:
        with os.scandir(path):
            pass
        # Listing needs `r`, opening what is listed needs `x`.
        if not os.access(path, os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            raise PermissionError
    except FileNotFoundError:
        return _problem(f"{setting} does not exist", f"mount the model there, or {remedy}")
    except NotADirectoryError:
        return _problem(f"{setting} is not a directory", remedy)
    except PermissionError:
        return _problem(
            f"{setting} cannot be read by uid {os.geteuid()}",
            "make it readable, or run as a user who may read it",
        )
    except (OSError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) else str(error)
        return _problem(f"{setting} cannot be read ({text})", remedy)
    return None


def _read_object(path: Path, problems: list[str], *, required: bool) -> dict[str, Any] | None:
    if not required and not os.path.lexists(path):
        return None
    remedy = "fetch that file again"
    try:
        content = json.loads(model_weights.read_regular(path).decode("utf-8"))
        if not isinstance(content, dict):
            raise ValueError("is not a JSON object")
        return content
    except FileNotFoundError:
        if os.path.lexists(path):
            problems.append(_problem(f"{path} is a link to nothing", "mount what it points to as well"))
        else:
            remedy = "set GLM47_MODEL_PATH to the directory that holds it"
            problems.append(_problem(f"{path} is missing", remedy))
    except PermissionError as error:
        problems.append(_problem(f"{path} {model_weights.reason(error)}", "make it readable"))
    except RecursionError:
        problems.append(_problem(f"{path} is nested too deeply", remedy))
    except (OSError, ValueError) as error:
        problems.append(_problem(f"{path} {model_weights.reason(error)}", remedy))
    return None


def _numbers(directory: Path, config: dict[str, Any], problems: list[str]) -> dict[str, int]:
    numbers = {}
    for name, key in _NUMBERS.items():
        value = config.get(key)
        if value is None:
            continue
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            numbers[name] = value
        else:
            what = f"{directory / CONFIG} has {key} = {json.dumps(value)[:60]}, not a positive whole number"
            problems.append(_problem(what, "fetch that file again"))
    return numbers


def _has_bos(data: dict[str, Any] | None) -> bool:
    # Dynamo reads an unsigned number; null or a list helps it as little as no field at all.
    value = (data or {}).get("bos_token_id")
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _warnings(directory: Path, config: dict[str, Any] | None) -> list[str]:
    warnings = []
    architectures = (config or {}).get("architectures")
    if config is not None and architectures != [ARCHITECTURE]:
        warnings.append(
            f"{directory / CONFIG} has architectures = {json.dumps(architectures)[:80]}: "
            f"the runner's settings are made for {ARCHITECTURE}"
        )
    if not (directory / "tokenizer.json").exists():
        warnings.append(f"{directory} has no tokenizer.json: Dynamo's frontend needs one to list the model")
    if not model_weights.has_weights(directory):
        warnings.append(f"{directory} has no safetensors files: only an engine without weights can use it")
    return warnings
