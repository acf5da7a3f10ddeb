"""Lets a GPU build of SGLang start on a CPU. Python runs this file first where PYTHONPATH has its folder.

It stands in for what a GPU machine has and this one lacks, and for nothing else: the scheduler, the
detokenizer, the bootstrap server, `dynamo.sglang` and NIXL run as they were released. So it shows nothing of
GPU kernels, NVFP4, an FP8 KV cache, CUDA graphs, FlashInfer or NCCL: those parts never run here.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

GPU_PACKAGES = {"sgl_kernel", "torchao", "vllm"}
MEDIA_PACKAGES = {"decord", "soundfile", "torchaudio", "torchvision"}
"""Imported by SGLang for models with eyes and ears."""
ABSENT = {"sgl_kernel.scalar_type", "vllm.logger", "vllm._C"}
"""SGLang looks for these in a try block: an ImportError is the right answer."""
MODELS = {"glm4_moe", "glm4_moe_nextn"}
"""The modules of the only models that are loaded: GLM-4.7 and its draft layer."""
LAYERS = "vllm.model_executor.layers."
"""On a CPU without AMX, SGLang takes two modules of layers from here, in place of its own of the same name,
whose classes have a version in plain PyTorch."""


def environment() -> None:
    """Variables that say "CPU" to SGLang, PyTorch and Mooncake, where nobody has set them."""
    for name, value in {
        "SGLANG_USE_CPU_ENGINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "MC_FORCE_TCP": "1",
        "OMP_NUM_THREADS": "1",
        "TORCHDYNAMO_DISABLE": "1",
        # By SGLang's own setting: reading the other 100 to 250 takes every scheduler over a second.
        "SGLANG_DISABLED_MODEL_ARCHS": ",".join(other_models()),
    }.items():
        os.environ.setdefault(name, value)
    # SGLang binds each rank to cores of its own, or refuses more ranks than the machine has NUMA nodes.
    words = dict(zip(sys.orig_argv, sys.orig_argv[1:], strict=False))
    if (ranks := words.get("--tp-size")) is not None:
        cores = ["0"] * (int(ranks) + int(words.get("--base-gpu-id", 0)) * (sglang_minor() >= 23))
        os.environ.setdefault("SGLANG_CPU_OMP_THREADS_BIND", "|".join(cores))


class Empty(types.ModuleType):
    """A package that is not installed: everything can be imported from it, nothing of it can be called."""

    __version__ = "0"
    __file__ = __file__

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.__name__.startswith(LAYERS):
            own = sys.modules["sglang.srt.layers." + self.__name__.removeprefix(LAYERS)]
            return getattr(own, name)
        what = f"{self.__name__}.{name}"

        def refuse(*args: object, **options: object) -> None:
            raise RuntimeError(f"cannot call {what}: the CPU engine has no {self.__name__.partition('.')[0]}")

        # A class, so that it can be subclassed and asked about with isinstance.
        made = type(name, (), {"__init__": refuse, "__module__": self.__name__})
        setattr(self, name, made)
        return made


class EmptyPackages(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds an `Empty` for a package that no other finder has found."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package = fullname.partition(".")[0]
        if package not in GPU_PACKAGES | MEDIA_PACKAGES or fullname in ABSENT:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return Empty(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """There is nothing in it."""


def host_memory(nixl: Any) -> None:
    """SGLang calls the KV cache's memory VRAM whatever the device; here it is the machine's own."""
    agent = nixl.nixl_agent
    original = agent.__init__

    def start(self: Any, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        self.nixl_mems["VRAM"] = self.nixl_mems["DRAM"]

    agent.__init__ = start


def text_only(transformers: Any) -> None:
    """The empty torchvision is not the real one."""
    transformers.is_torchvision_available = lambda: False
    transformers.is_torchvision_v2_available = lambda: False


def kernel_names(common: Any) -> None:
    """Newer releases look up CPU kernels of models that are not run here while they are imported."""

    class Names:
        def __getattr__(self, name: str) -> Any:
            if not name.endswith("_cpu"):  # the other names are how SGLang asks what is there
                raise AttributeError(name)
            return getattr(Empty("sgl_kernel"), name)

    common.torch.ops.sgl_kernel = Names()


def pageable(pool: Any) -> None:
    """Host memory is pinned for a GPU's copies only."""
    pool._cuda_host_register = pool._cuda_host_unregister = lambda *args, **options: None


def replicated_heads(update_config: Any) -> None:
    """On a CPU SGLang pads the KV heads to a multiple of TP; on a GPU ranks beyond them share heads."""
    update_config.get_num_heads_padding_size = lambda *args, **options: 1


CHANGES: dict[str, Callable[[Any], None]] = {
    "nixl_cu12._api": host_memory,
    "nixl_cu13._api": host_memory,
    "transformers.utils.import_utils": text_only,
    "sglang.srt.utils.common": kernel_names,
    "sglang.srt.mem_cache.pool_host.common": pageable,
    "sglang.srt.configs.update_config": replicated_heads,
}
"""What is changed in a module that is there, by its name, as soon as it is imported."""


class Changed(importlib.abc.Loader):
    """The loader of a module in `CHANGES`."""

    def __init__(self, original: Any, change: Callable[[Any], None]) -> None:
        self.original, self.change = original, change

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        made: types.ModuleType | None = self.original.create_module(spec)
        return made

    def exec_module(self, module: types.ModuleType) -> None:
        self.original.exec_module(module)
        self.change(module)


class ChangedModules(importlib.abc.MetaPathFinder):
    """Finds the modules in `CHANGES` where Python itself finds them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        change = CHANGES.get(fullname)
        spec = change and importlib.machinery.PathFinder.find_spec(fullname, path)
        if not spec or change is None:
            return None
        spec.loader = Changed(spec.loader, change)
        return spec


def other_models() -> list[str]:
    """The modules of the models that are not run here."""
    sglang = importlib.util.find_spec("sglang")
    folders = (sglang and sglang.submodule_search_locations) or ()
    found = (file.stem for folder in folders for file in Path(folder, "srt", "models").glob("*.py"))
    return sorted(set(found) - MODELS - {"__init__"})


def sglang_minor() -> int:
    """23 of SGLang 0.5.23, without importing it."""
    import importlib.metadata

    return int(importlib.metadata.version("sglang").split(".")[2])


def is_engine() -> bool:
    """Whether this interpreter holds SGLang: the runner, with the same PYTHONPATH, is left alone."""
    return importlib.util.find_spec("sglang") is not None


if is_engine():
    environment()
    if any(name.startswith("CPU_ENGINE_") for name in os.environ):
        import faults

        faults.install(CHANGES)
    sys.meta_path.insert(0, ChangedModules())
    sys.meta_path.append(EmptyPackages())
