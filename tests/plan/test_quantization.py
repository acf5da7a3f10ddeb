"""A model that is not quantized as the settings say is refused before SGLang is started."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from entrypoint.errors import ConfigError
from entrypoint.node.facts import Facts
from entrypoint.node.model import quantization
from entrypoint.plan.releases import FP8_TO_FP4
from tests.plan.deployments import HEAD, IMAGE, MODEL, Container, build

NVFP4 = {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8", "group_size": 16}


@pytest.mark.parametrize(
    ("config", "modelopt", "method"),
    [
        ({}, None, "none"),
        ({"quantization_config": None}, None, "none"),
        ({}, {"quantization": NVFP4}, "modelopt_fp4"),
        ({}, {"quantization": {"quant_algo": "W4A16_NVFP4"}}, "modelopt_fp4"),
        ({}, {"quantization": {"quant_algo": "FP8"}}, "modelopt_fp8"),
        ({}, {"quantization": {"quant_algo": "MIXED_PRECISION"}}, "w4afp8"),
        ({}, {"quantization": {}}, "modelopt"),
        ({"quantization_config": NVFP4}, None, "modelopt_fp4"),
        ({"quantization_config": {**NVFP4, "quant_method": "modelopt"}}, None, "modelopt_fp4"),
        ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8"}}, None, "modelopt_fp8"),
        ({"quantization_config": {"quant_method": "fp8"}}, {"quantization": NVFP4}, "fp8"),
        (
            {"quantization_config": {"quant_method": "compressed-tensors"}},
            None,
            "compressed-tensors",
        ),
        ({"quantization_config": {"quant_method": "compressed_tensors"}}, None, "compressed-tensors"),
        ({"compression_config": {"format": "nvfp4-pack-quantized"}}, None, "compressed-tensors"),
        ({"quantization_config": {"quant_method": "AWQ", "bits": 4}}, None, "awq"),
    ],
)
def test_what_a_model_says(config: dict[str, Any], modelopt: dict[str, Any] | None, method: str) -> None:
    assert quantization.of_model(config, modelopt) == method


TAKEN = [
    ("none", "none", True),
    ("none", "compressed-tensors", True),
    ("none", "modelopt_fp4", True),
    ("modelopt_fp4", "modelopt_fp4", True),
    ("MODELOPT_FP4", "modelopt_fp4", True),
    ("modelopt_fp4", "modelopt", True),
    ("modelopt", "modelopt_fp4", True),
    ("modelopt_fp4", "none", False),
    ("modelopt_fp4", "fp8", False),
    ("modelopt_fp4", "compressed-tensors", False),
    ("modelopt_fp4", "modelopt_fp8", False),
    ("modelopt_fp4", "awq", False),
    ("modelopt_fp8", "modelopt_fp4", False),
    ("modelopt_fp8", "fp8", False),
    ("compressed-tensors", "none", False),
    ("compressed-tensors", "modelopt_fp4", False),
    ("compressed-tensors", "compressed-tensors", True),
    ("fp8", "none", True),  # it quantizes while it loads
    ("fp8", "compressed-tensors", False),
    ("awq", "gptq", True),  # SGLang's business
]


@pytest.mark.parametrize(("asked", "model", "taken"), TAKEN)
@pytest.mark.parametrize("by", ["GLM47_QUANTIZATION", "GLM47_EXTRA_ARGS --quantization"])
def test_the_option_must_go_with_the_model(asked: str, model: str, taken: bool, by: str) -> None:
    settings: dict[str, Any] = {**HEAD, "role": "decode"}
    if by == "GLM47_QUANTIZATION":
        settings["quantization"] = asked
    elif asked == "none":
        return
    else:
        settings["extra_args"] = f"--quantization {asked}"
    container = Container(settings, facts=Facts(replace(MODEL, quantization=model), IMAGE))
    if taken:
        build(container)
        return
    with pytest.raises(ConfigError) as error:
        build(container)
    lines = [line for line in error.value.problems if "the model at" in line]
    what = "not quantized" if model == "none" else f"quantized with {model}"
    assert lines == [
        f"cannot use {by}: {asked}: the model at /model is {what}: set GLM47_QUANTIZATION=none, "
        "or serve another checkpoint"
    ]


@pytest.mark.parametrize(
    ("sglang", "taken"),
    [(None, False), ("0.5.6.post2", False), ("0.5.17", False), ("0.5.18", True), ("0.5.23", True)],
)
def test_newer_releases_make_nvfp4_of_fp8(sglang: str | None, taken: bool) -> None:
    known = FP8_TO_FP4.holds(sglang) is True
    assert quantization.refused("modelopt_fp4", "fp8", fp8_to_fp4=known) is not taken
    assert quantization.refused("modelopt_fp4", "compressed-tensors", fp8_to_fp4=known)


def test_nothing_is_said_of_a_model_that_was_not_read() -> None:
    build(Container({**HEAD, "role": "decode"}, facts=Facts(replace(MODEL, quantization=None), IMAGE)))
