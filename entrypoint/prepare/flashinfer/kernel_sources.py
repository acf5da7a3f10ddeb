"""Sources of CUTLASS's MoE kernels, which FlashInfer before 0.6.3 writes into its own package.

`cutlass_fused_moe` (SGLang's flashinfer_cutlass) has them written before it looks for a compiled kernel, and
no variable moves them. The writer leaves a file alone that has the right content, so where they were written
when the image was built, nothing is written any more. Here the release's own writer is called, without the
package around it: that would load torch and ask for GPUs.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from entrypoint.errors import PatchError

TARGETS = ("100", "103")
"""The GPU generations that an image is built for, as CUDA numbers them: GB200 and GB300."""
ASK_TIMEOUT = 20.0
"""Seconds that nvidia-smi gets; it is slow where the driver must be woken first."""

_IN_PACKAGE = re.compile(r'FLASHINFER_CSRC_DIR\s*/\s*f"([\w/]+)/\{device_arch\}"')
_KNOWN = re.compile(r'gen_cutlass_fused_moe_module\(\s*nvcc_flags,\s*"(\d+)"')
_SAME_CODE = {"121": "120"}
"""GPU generations that FlashInfer serves with another one's sources."""
_NAME = "glm47_runner_flashinfer"
"""What the package is called here, so that nobody takes it for the real one."""


def directory(package: Path) -> Path | None:
    """Where the release in `package` writes them; None when that is not in the package."""
    found = _IN_PACKAGE.search(_text(package))
    return package / "data" / "csrc" / found[1] if found else None


def known(package: Path) -> tuple[str, ...]:
    """The GPU generations that the release has such kernels for."""
    return tuple(sorted(set(_KNOWN.findall(_text(package))), key=int))


def serves(package: Path, generation: str) -> bool:
    """Whether the release has such kernels for this GPU generation."""
    return _SAME_CODE.get(generation, generation) in known(package)


def write(package: Path, generation: str) -> Path:
    """Write the sources for one GPU generation, where they are not there; returns their directory.

    OSError when that is needed and cannot be done. PatchError (73) when the release has no such sources.
    """
    place = directory(package)
    generation = _SAME_CODE.get(generation, generation)
    if place is None or generation not in known(package):
        raise PatchError(
            f"cannot write FlashInfer's kernel sources for GPU generation {generation}: {package}: "
            f"it has them for {', '.join(known(package)) or 'none'}: name one of these"
        )
    target = place / generation
    target.mkdir(parents=True, exist_ok=True)
    with _writer(package) as write_all:
        write_all(target, f"{generation};{generation}-real")
    return target


def gpus() -> tuple[str, ...]:
    """The generations of this machine's GPUs, as its driver says; empty when it does not."""
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=ASK_TIMEOUT, stdin=subprocess.DEVNULL, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(sorted({major + minor for major, minor in re.findall(r"^(\d+)\.(\d+)$", done.stdout, re.M)}))


def _text(package: Path) -> str:
    try:
        return (package / "jit" / "fused_moe.py").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


@contextmanager
def _writer(package: Path) -> Iterator[Callable[[Path, str], None]]:
    """The release's `generate_gemm_operations`, from its own file."""
    folders: Sequence[str] = ("", "jit", "jit/gemm", "jit/gemm/cutlass")
    made = {}
    for folder in folders:
        module = types.ModuleType(".".join([_NAME, *folder.split("/")]).rstrip("."))
        module.__path__ = [str(package / folder)]
        made[module.__name__] = module
    # All that it asks the rest of the package. Only Hopper's sources depend on the answer, and every CUDA
    # that knows Blackwell is at least 12.8.
    compiler = types.ModuleType(f"{_NAME}.jit.cpp_ext")
    compiler.is_cuda_version_at_least = lambda version: True  # type: ignore[attr-defined]
    made[compiler.__name__] = compiler
    sys.modules.update(made)
    try:
        module = importlib.import_module(f"{_NAME}.jit.gemm.cutlass.generate_kernels")
        yield module.generate_gemm_operations
    except (ImportError, AttributeError) as error:
        raise PatchError(
            f"cannot write FlashInfer's kernel sources: {package}: {error}: install an unchanged flashinfer"
        ) from None
    finally:
        for name in [n for n in sys.modules if n == _NAME or n.startswith(f"{_NAME}.")]:
            del sys.modules[name]
