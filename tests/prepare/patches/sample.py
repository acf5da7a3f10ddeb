"""A made-up sglang package with the structure that the edits look for. Its functions are never called."""

from __future__ import annotations

from pathlib import Path

from entrypoint.prepare.patches import glm4_moe, modelopt

MODELOPT = '''"""Weights of a made-up release."""

from __future__ import annotations

LEFT_ALONE = {"a":1,   "b" : 2}  # odd spacing stays


class Other:
    def process_weights_after_loading(self, layer):
        assert_dim = 1
        return assert_dim


class ModelOptNvFp4FusedMoEMethod:
    def process_weights_after_loading(self, layer) -> None:
        """Process."""
        # Validate
        assert_dim = 2 if layer.moe_runner_config.is_gated else 1
        for name, weight_scale in [("w13", layer.w13_weight_scale), ("w2", layer.w2_weight_scale)]:
            assert (
                weight_scale.shape[assert_dim] % 16 == 0
            ), f"Expected {name}_weight_scale.dim({assert_dim}) to be divisible by 16"
            assert weight_scale.dtype is not None, "dtype"
        if self.enable_flashinfer_trtllm_moe:
            self.prepare(layer)
        else:
            intermediate_size_pad = 64
            if intermediate_size_pad:
                # padding gated activations will require more
                assert not layer.moe_runner_config.is_gated, (
                    "The intermediate size required padding, "
                    "but padding is also implemented for gated activations"
                )
                layer.w13_weight = None  # ü
'''
GLM4_MOE = '''"""A made-up model."""


def get_moe_impl_class(quant_config):
    return dict


class Glm4MoeSparseMoeBlock:
    def __init__(self, config, quant_config=None, prefix=""):
        self.experts = get_moe_impl_class(quant_config)(
            num_experts=config.n_routed_experts,
            prefix=prefix + "experts",
        )
'''


def write(
    place: Path, version: str = "0.5.6.post2", text: str = MODELOPT, model: str | None = GLM4_MOE
) -> Path:
    """An importable `sglang` package in `place`; returns the directory that holds it."""
    package = place / "sglang"
    for name, content in ((modelopt.PATH, text), (glm4_moe.PATH, model)):
        if content is None:
            continue
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode())
        for directory in path.parents:
            if directory == place:
                break
            (directory / "__init__.py").touch()
    (package / "version.py").write_text(f'__version__ = "{version}"\n')
    return place


def source(place: Path) -> Path:
    """The file of the ModelOpt edit in the package that `place` holds."""
    return place / "sglang" / modelopt.PATH
