"""How a model is quantized, as SGLang reads it from the model's files, and which options go with it. Pure.

After `_parse_quant_hf_config` and `_verify_quantization` of sglang 0.5.6.post2 to 0.5.23
(configs/model_config.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NONE = "none"
"""A model that is not quantized; as an option: it is left out, and SGLang takes what the model says."""
MADE_BEFORE = ("modelopt", "modelopt_fp4", "modelopt_fp8", "compressed-tensors", "w4afp8", "petit_nvfp4")
"""Options that need a checkpoint that was quantized so; others may quantize while they load."""
CHECKED = (*MADE_BEFORE, "fp8")
"""Options that are judged here; a rarer one is SGLang's business."""
TAKEN = {
    "modelopt_fp4": ("modelopt",),
    "modelopt_fp8": ("modelopt",),
    "modelopt": ("modelopt_fp4", "modelopt_fp8"),
    "petit_nvfp4": ("modelopt", "modelopt_fp4"),
}
"""Other checkpoints that an option takes, on every release."""


def of_model(config: Mapping[str, Any], modelopt: Mapping[str, Any] | None) -> str:
    """The method of a model, `NONE` when it is not quantized.

    `config`: its config.json; `modelopt`: its hf_quant_config.json, which counts where that says nothing.
    Raises ValueError, with what is wrong as a phrase that follows a file's name.
    """
    for key in ("quantization_config", "compression_config"):
        found = config.get(key)
        if found is None:
            continue
        if not isinstance(found, dict):
            raise ValueError(f"has {key} that is not an object")
        usual = "modelopt" if key == "quantization_config" else "compressed-tensors"
        method = found.get("quant_method", usual)
        if not isinstance(method, str):
            raise ValueError(f"has {key}.quant_method that is not text")
        method = method.lower().replace("compressed_tensors", "compressed-tensors")
        return _modelopt(found) if method == "modelopt" else method
    if modelopt is None:
        return NONE
    nested = modelopt.get("quantization")
    if not isinstance(nested, dict):
        raise ValueError("has no object called quantization")
    return _modelopt(nested)


def _modelopt(settings: Mapping[str, Any]) -> str:
    algorithm = settings.get("quant_algo")
    if not isinstance(algorithm, str):
        return "modelopt"
    if algorithm == "MIXED_PRECISION":
        return "w4afp8"
    return "modelopt_fp4" if "FP4" in algorithm else "modelopt_fp8" if "FP8" in algorithm else "modelopt"


def refused(option: str, model: str, *, fp8_to_fp4: bool) -> bool:
    """Whether SGLang does not serve `model` with `option`; `fp8_to_fp4`: it is a release that does that."""
    option = option.lower()
    if option in (NONE, model) or option not in CHECKED:
        return False
    if model == NONE:
        return option in MADE_BEFORE
    if option == "modelopt_fp4" and model == "fp8" and fp8_to_fp4:
        return False
    # A mixed checkpoint has names of its own in newer releases.
    return model not in TAKEN.get(option, ()) and not (model == "w4afp8" and option.startswith("modelopt"))
