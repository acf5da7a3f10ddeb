"""Runs FlashInfer's own functions where there is neither a GPU nor a compiler, and says what became of them.

    python harness.py call FUNCTION…      each one's outcome, as JSON: "ok", "absent", or its error
    python harness.py cubins DIRECTORY    a made-up flashinfer_cubin package for the release, in DIRECTORY
    python harness.py engine …            in an engine's place: `call` of what CALLS names, as one line

The flashinfer package that this interpreter finds is real, and so is whatever it does with files, directories
and locks: it generates sources, makes links, takes locks and writes ninja's files. What is not installed of
torch, tvm_ffi and the like is a stub; so are ninja's run and the loading of what it would have compiled.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import sys
import types
from pathlib import Path

from engine_stubs import Missing

GENERATION = os.environ.get("GENERATION", "100")
"""The GPU that there seems to be."""
THIRD = {"torch", "tvm_ffi", "requests", "jinja2", "tqdm", "einops", "numpy", "cuda", "nvidia", "triton"}
"""Stubbed where they are not installed."""
MODULES = ("fused_moe", "gemm.core", "moe_utils")
"""Below flashinfer.jit, where the functions are."""
METAINFO = """static constexpr size_t tllmGen{0}ListLen = 1;
static const x tllmGen{0}List[] = {{
{{nullptr, 0, 0,
}}, gemm::SmVersion::Sm100a}},
}};
"""
CUBIN_PACKAGE = '''"""A made-up flashinfer_cubin: headers without their content, no cubins."""

from pathlib import Path

__version__ = "{version}"


def get_cubin_dir():
    return str(Path(__file__).parent / "cubins")
'''


def load():
    """flashinfer.jit and its modules; flashinfer's own `__init__`, which imports all kernels, is left out."""
    os.environ["FLASHINFER_CUDA_ARCH_LIST"] = f"{GENERATION[:-1]}.{GENERATION[-1]}a"
    # Of the checksums only that of the list of checksums is beyond a made-up package.
    os.environ["FLASHINFER_CUBIN_CHECKSUM_DISABLED"] = "1"
    os.environ["FLASHINFER_NO_DOWNLOAD"] = "1"
    os.environ["CUDA_HOME"] = fake_cuda()
    sys.meta_path.append(Missing(THIRD))
    spec = importlib.util.find_spec("flashinfer")
    package = types.ModuleType("flashinfer")
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    sys.modules["flashinfer"] = package
    core = importlib.import_module("flashinfer.jit.core")
    core.run_ninja = lambda *args: None
    core.tvm_ffi = types.SimpleNamespace(load_module=lambda path: "loaded")
    return [m for name in MODULES if (m := module(f"flashinfer.jit.{name}"))]


def module(name):
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None


def fake_cuda():
    """A directory with an nvcc that only tells its version."""
    home = Path(os.environ["FLASHINFER_WORKSPACE_BASE"], "cuda")
    (home / "bin").mkdir(parents=True, exist_ok=True)
    nvcc = home / "bin" / "nvcc"
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 13.0, V13.0.48'\n")
    nvcc.chmod(0o755)
    return str(home)


def call(names):
    """Each function's outcome."""
    modules = load()
    outcome = {}
    for name in names:
        function = next((getattr(m, name) for m in modules if hasattr(m, name)), None)
        if function is None:
            outcome[name] = "absent"
            continue
        try:
            assert function().build_and_load() == "loaded"
            outcome[name] = "ok"
        except Exception as error:
            outcome[name] = f"{type(error).__name__}: {error}"
    return outcome


def make_cubins(directory):
    """Every header and list that the release's functions ask for, with checksums of their own."""
    modules = load()
    version = importlib.import_module("flashinfer.version").__version__
    paths = importlib.import_module("flashinfer.artifacts").ArtifactPath
    package = Path(directory) / "flashinfer_cubin"
    kinds = (
        ("TRTLLM_GEN_BMM", "BMM_EXPORT_HEADERS", "trtllmGen_bmm_export", "BatchedGemm"),
        ("TRTLLM_GEN_GEMM", "GEMM_EXPORT_HEADERS", "trtllmGen_gemm_export", "Gemm"),
    )
    for path, names, folder, what in kinds:
        root = package / "cubins" / getattr(paths, path)
        headers = next((getattr(m, names) for m in modules if hasattr(m, names)), [])
        files = {f"{folder}/{name}": f"// {name}, made up\n" for name in headers}
        files["flashinferMetaInfo.h"] = METAINFO.format(what)
        sums = []
        for name, text in files.items():
            file = root / "include" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            sums.append(f"{hashlib.sha256(text.encode()).hexdigest()}  include/{name}\n")
        (root / "checksums.txt").write_text("".join(sums))
    (package / "__init__.py").write_text(CUBIN_PACKAGE.format(version=version))


def main():
    command, *words = sys.argv[1:]
    if command == "cubins":
        make_cubins(*words)
    elif command == "call":
        json.dump(call(words), sys.stdout)
    else:
        print("FlashInfer:", json.dumps(call(os.environ["CALLS"].split())), flush=True)
        sys.exit(7)


if __name__ == "__main__":
    main()
