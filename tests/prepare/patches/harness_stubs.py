"""Stubs for what a CPU has not: CUDA, kernels, distributed state, and packages that are not installed.

`Finder` imports the few modules that are measured from a release's own files, and answers every other import
below `sglang` and `flashinfer` with a module of stubs. Used by harness.py, in an environment with torch.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import types
from pathlib import Path

import torch

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


class Stub:
    """Whatever it is asked for: an attribute, a call, a base class, a decorator, a false condition."""

    def __init__(self, *args, **kwargs):
        pass

    def __call__(self, *args, **kwargs):
        if len(args) == 1 and not kwargs and isinstance(args[0], (types.FunctionType, type)):
            return args[0]
        return Stub()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return OVERRIDES.get(name) or Stub()

    def __mro_entries__(self, bases):
        return (object,)

    def __bool__(self):
        return False

    def __iter__(self):
        return iter(())

    def __contains__(self, item):
        return False

    def __getitem__(self, item):
        return Stub()

    def __or__(self, other):
        return Stub()

    __ror__ = __or__

    def __lt__(self, other):
        return False

    __gt__ = __le__ = __ge__ = __lt__


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


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Real modules from the given roots; a stub for the rest of them and for what is not installed."""

    def __init__(self, roots: dict[str, Path]):
        self.roots = roots

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in self.roots:
            return None
        file = self.roots[top].joinpath(*name.split(".")).with_suffix(".py")
        if name in REAL and file.is_file():
            return importlib.util.spec_from_file_location(name, file)
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__getattr__ = lambda attr: self._attribute(spec.name, attr)
        return module

    def _attribute(self, name, attr):
        if attr.startswith("__"):
            raise AttributeError(attr)
        if attr in OVERRIDES:
            return OVERRIDES[attr]
        # A package that re-exports names of a real module (sglang.srt.layers.utils, flashinfer, …).
        for real in sorted(REAL):
            if real.startswith(name + ".") and real.rpartition(".")[0] in (name, name + ".fused_moe"):
                try:
                    module = importlib.import_module(real)
                except ImportError:
                    continue
                if attr in vars(module):
                    return vars(module)[attr]
        return Stub()

    def exec_module(self, module):
        pass


class Missing(Finder):
    """Stubs for third-party modules that this environment lacks; last in line."""

    def __init__(self):
        super().__init__({})

    def find_spec(self, name, path=None, target=None):
        known = name.partition(".")[0] in THIRD
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if known else None


THIRD = {
    "triton", "regex", "sgl_kernel", "transformers", "tvm_ffi", "filelock", "compressed_tensors", "pydantic",
    "pynvml", "einops", "cuda", "nvidia", "tqdm", "requests", "pybase64", "zmq", "psutil", "orjson",
    "msgspec",
}  # fmt: skip
