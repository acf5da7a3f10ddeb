"""What the model directory says of itself, and what is wrong with it. Reads only."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from entrypoint.node.facts import ModelFacts
from entrypoint.node.model import files, quantization
from entrypoint.node.model import weights as model_weights

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
QUANT_CONFIG = "hf_quant_config.json"
ARCHITECTURE = "Glm4MoeForCausalLM"
AGAIN = "fetch the model's files again"
LARGEST = 10**7
"""What no model's dimension or number of tokens reaches."""

_NUMBERS = {
    "experts": "n_routed_experts",
    "moe_intermediate_size": "moe_intermediate_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
}
_CHECKED = (*_NUMBERS.values(), "num_hidden_layers", "hidden_size")
"""Numbers of config.json that must be such."""


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
    if files.leads_nowhere(directory / CONFIG):
        return _failed(Inspection(path), problems)  # no model at all: what else is missing says nothing
    generation = _read_object(directory / GENERATION_CONFIG, problems, required=False)
    tokenizer = _read_object(directory / TOKENIZER_CONFIG, [], required=False)
    facts = ModelFacts(
        config_read=config is not None,
        own_code=any("auto_map" in (data or {}) for data in (config, tokenizer)),
        needs_bos_fix=not any(_has_bos(data) for data in (generation, config)),
    )
    numbers: dict[str, Any] = _numbers(directory, config or {}, problems)
    method = _quantization(directory, config, problems)
    facts = replace(facts, **numbers, quantization=method)
    for name, data in ((CONFIG, config), (GENERATION_CONFIG, generation)):
        problems += _token_problems(directory / name, data or {}, config or {})
    try:
        others = files.problems(directory, weights=weights)
        # What was said of a file above is not said again in other words.
        new = [(text, remedy) for text, remedy in others if not _said(text, problems)]
        problems += [_problem(f"{path}/{text}", remedy) for text, remedy in new]
        template = _template_problem(directory, problems)
        problems += [template] if template else []
        for text in model_weights.problems(directory) if weights else []:
            if _said(text, problems):
                continue
            remedy = files.LFS_REMEDY if files.LFS_TEXT in text else AGAIN
            problems.append(_problem(f"{path}/{text}", remedy))
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


def _said(text: str, problems: list[str]) -> bool:
    """Whether there is a problem already with the file that `text` begins with."""
    name = text.split()[0].rstrip(":")
    return any(f"/{name} " in line for line in problems)


def _quantization(directory: Path, config: dict[str, Any] | None, problems: list[str]) -> str | None:
    """How the model is quantized; None when that cannot be told."""
    if config is None:
        return None
    name, modelopt = CONFIG, None
    if not any(config.get(key) is not None for key in ("quantization_config", "compression_config")):
        before = len(problems)
        modelopt = _read_object(directory / QUANT_CONFIG, problems, required=False)
        if len(problems) > before:
            return None
        name = QUANT_CONFIG
    try:
        return quantization.of_model(config, modelopt)
    except ValueError as error:
        problems.append(_problem(f"{directory / name} {error}", AGAIN))
        return None


def _token_problems(path: Path, data: dict[str, Any], config: dict[str, Any]) -> list[str]:
    """Token ids that no vocabulary has. What is no number, or negative, counts as not given."""
    size = config.get("vocab_size")
    limit = size if isinstance(size, int) and not isinstance(size, bool) and 0 < size < LARGEST else LARGEST
    wrong = []
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = data.get(key)
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int) and one >= limit:
                most = f"the model's vocab_size is {limit}" if limit == size else "no vocabulary is so large"
                what = f"{path} has {key} = {_shown(one)}, and {most}"
                wrong.append(_problem(what, "fetch that file again"))
                break
    return wrong


def _template_problem(directory: Path, problems: list[str]) -> str | None:
    """Dynamo's frontend lists no model without a chat template (0.8.1: only in these two places)."""
    path = directory / files.TOKENIZER_CONFIG
    if _said(files.TOKENIZER_CONFIG, problems) or os.path.lexists(directory / files.TEMPLATE):
        return None
    before = len(problems)
    settings = _read_object(path, problems, required=False)
    if len(problems) > before or settings is None or settings.get("chat_template"):
        return None
    return _problem(
        f"{directory} has no chat template, neither {files.TEMPLATE} nor chat_template in {path.name}: "
        "Dynamo's frontend lists no model without one",
        "fetch that file again",
    )


def _shown(value: int) -> str:
    return str(value) if abs(value) < 10**15 else f"a number of {len(str(value))} digits"


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
        data = model_weights.read_regular(path)
        if data.startswith(files.LFS):
            remedy = files.LFS_REMEDY
            raise ValueError(files.LFS_TEXT)
        content = json.loads(data.decode("utf-8"))
        if not isinstance(content, dict):
            raise ValueError("is not a JSON object")
        return content
    except FileNotFoundError:
        if os.path.lexists(path):
            problems.append(_problem(f"{path} is a link to nothing", "mount what it points to as well"))
        else:
            remedy = "set GLM47_MODEL_PATH to the directory that holds it"
            if path.name == CONFIG and (place := files.other_place(str(path.parent))) is not None:
                remedy = f"set GLM47_MODEL_PATH to {place}, and mount all of {path.parent}"
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
    for key in _CHECKED:
        value = config.get(key)
        if value is None:
            continue
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < LARGEST:
            numbers[key] = value
        else:
            big = isinstance(value, int) and value >= LARGEST
            text = _shown(value) if big else f"{json.dumps(value)[:60]}, not a positive whole number"
            what = f"{directory / CONFIG} has {key} = {text}"
            problems.append(_problem(what, "fetch that file again"))
    return {name: numbers[key] for name, key in _NUMBERS.items() if key in numbers}


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
