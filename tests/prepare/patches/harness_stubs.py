"""Stubs for what a CPU has not: CUDA, kernels, distributed state, and packages that are not installed.

`Finder` imports the few modules that are measured from a release's own files, and answers every other import
below `sglang` and `flashinfer` with a module of stubs. Used by harness.py, in an environment with torch.
"""

from __future__ import annotations

import importlib
import types
from pathlib import Path

import torch
from engine_stubs import Stub, Stubs

REAL = {
    "sglang.srt.layers.quantization.modelopt_quant",
    "sglang.srt.layers.quantization.utils",
    "sglang.srt.layers.quantization.base_config",
    "sglang.srt.layers.parameter",
    "sglang.srt.layers.utils.common",
    "sglang.srt.layers.moe.cutlass_moe_params",
    "sglang.srt.layers.moe.moe_runner.flashinfer_trtllm",
    "flashinfer.utils",
    "flashinfer.fused_moe.core",
    "flashinfer.fused_moe.utils",
    "flashinfer.tllm_enums",
}
"""Modules whose own source runs."""


class Backend:
    """The MoE runner that a case runs with."""

    name = "flashinfer_cutlass"

    def __getattr__(self, name):
        return lambda *args: name == f"is_{Backend.name}"


def interleave(scale: torch.Tensor) -> torch.Tensor:
    """FlashInfer's nvfp4_block_scale_interleave, a CUDA kernel: rows in tiles of 128 by 4."""
    rows, cols = scale.shape
    tiles = scale.reshape(rows // 128, 4, 32, cols // 4, 4)
    return tiles.permute(0, 3, 2, 1, 4).contiguous().reshape(-1)


OVERRIDES = {
    "is_blackwell_supported": lambda *a: True,
    "get_moe_runner_backend": lambda *a: Backend(),
    "round_up": lambda x, y: (x + y - 1) // y * y,
    "round_up_to_multiple": lambda x, y: (x + y - 1) // y * y,
    "nvfp4_block_scale_interleave": interleave,
    "block_scale_interleave": interleave,
    "flashinfer_api": lambda *a, **k: a[0] if a else (lambda f: f),
    "is_cuda": lambda *a: False,
    "get_platform": lambda *a: types.SimpleNamespace(is_blackwell=True, is_sm120=False, is_cuda=False),
}


Stub.known = OVERRIDES


class Finder(Stubs):
    """Real modules from the given roots; stubs for the rest of them."""

    def __init__(self, roots: dict[str, Path]):
        self.roots = roots

    def stubbed(self, name):
        return name.partition(".")[0] in self.roots

    def source(self, name):
        root = self.roots[name.partition(".")[0]]
        return root.joinpath(*name.split(".")).with_suffix(".py") if name in REAL else None

    def attribute(self, module, name):
        # A package that re-exports names of a real module (sglang.srt.layers.utils, flashinfer, …).
        if not name.startswith("__") and name not in OVERRIDES:
            for real in sorted(REAL):
                if real.startswith(module + ".") and real.rpartition(".")[0] in (
                    module,
                    module + ".fused_moe",
                ):
                    try:
                        found = importlib.import_module(real)
                    except ImportError:
                        continue
                    if name in vars(found):
                        return vars(found)[name]
        return super().attribute(module, name)


THIRD = {
    "triton", "regex", "sgl_kernel", "transformers", "tvm_ffi", "filelock", "compressed_tensors", "pydantic",
    "pynvml", "einops", "cuda", "nvidia", "tqdm", "requests", "pybase64", "zmq", "psutil", "orjson",
    "msgspec",
}  # fmt: skip
"""Stubs for third-party packages that this environment lacks."""
