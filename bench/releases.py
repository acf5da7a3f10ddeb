"""Real sglang releases, unpacked, patched and measured; bench/patch_table.py and the tests use it.

Wheels come from the package registry through pip and stay in .cache/wheels; only the few files that matter
are unpacked. The numbers are measured on a CPU by tests/prepare/patches/harness.py in an environment of its
own, .cache/torch-venv (`torch_python`).
"""

from __future__ import annotations

import ast
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
HARNESS = ROOT / "tests" / "prepare" / "patches" / "harness.py"
STUBS = ROOT / "tests" / "support" / "stubs"
"""Where the harnesses import stand-ins from for what is not installed."""
PAGE = ROOT / "docs" / "patches.md"
TORCH = ROOT / "requirements" / "torch.txt"
PINNED = ("0.5.6.post2", "0.5.3")
"""(sglang, flashinfer) of the image's default base."""
OLDEST = (0, 5, 6)
WIDTHS = (384, 192, 160, 96, 48, 32, 16)
RUNNERS = ("flashinfer_cutlass", "flashinfer_trtllm")
_WANTED = re.compile(
    r"^(sglang/(version|_version)\.py|sglang/srt/layers/.*\.py|sglang/srt/models/glm4_moe\.py"
    r"|sglang/srt/disaggregation/(utils|base/conn|(common|nixl|mooncake)/[a-z_]+)\.py"
    r"|flashinfer/(utils|tllm_enums)\.py|flashinfer/fused_moe/[a-z_0-9]+\.py"
    r"|flashinfer/data/csrc/.*[Rr]outing_?[Dd]eep[Ss]eek.*\.(cu|cuh)|[^/]+\.dist-info/METADATA)$"
)

_FLASHINFER = re.compile(r"^Requires-Dist: flashinfer[_-]python(?:\[[^]]*\])?==([^;\s]+)", re.MULTILINE)


class UnavailableError(Exception):
    """Something outside this repository is missing: the registry, or a wheel for this machine."""


@dataclass(frozen=True)
class Release:
    """An unpacked sglang wheel, and the flashinfer that it pins."""

    version: str
    sglang: Path
    flashinfer_version: str
    flashinfer: Path


def pip(python: str, *arguments: str) -> str:
    """Standard output of ``python -m pip …``. UnavailableError with pip's last line when it fails."""
    done = subprocess.run(
        [python, "-m", "pip", "--disable-pip-version-check", *arguments], capture_output=True, text=True
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no reason given"]
        raise UnavailableError(f"pip {arguments[0]} {arguments[-1]}: {lines[-1].removeprefix('ERROR: ')}")
    return done.stdout


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep other processes out until we are done with `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def torch_python() -> str:
    """The interpreter that has torch, made on first use. UnavailableError when it cannot be had."""
    place = CACHE / "torch-venv"
    python = str(place / "bin" / "python")
    ready = place / ".ready"
    requirements = TORCH.read_text()
    with alone(place):
        if ready.exists() and ready.read_text() == requirements:
            return python
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        install_torch(python)
        ready.write_text(requirements)
    return python


def install_torch(python: str) -> None:
    """Install torch beside `python`. UnavailableError when it cannot be had.

    It is first installed without what it depends on: a CPU build needs next to nothing of that. The build
    for CUDA, which the registry has for Linux, does not load without CUDA's libraries: a few GB follow then.
    """
    pip(python, "install", "--quiet", "--no-deps", "--requirement", str(TORCH))
    if not _loads(python):
        pip(python, "install", "--quiet", "--requirement", str(TORCH))
    if not _loads(python):
        raise UnavailableError("torch is installed and cannot be imported")


def _loads(python: str) -> bool:
    return subprocess.run([python, "-c", "import torch"], capture_output=True).returncode == 0


def versions() -> list[str]:
    """sglang's final releases from `OLDEST` on, oldest first."""
    output = pip(sys.executable, "index", "versions", "sglang")
    line = next(line for line in output.splitlines() if line.startswith("Available versions:"))
    found = [v.strip() for v in line.partition(":")[2].split(",")]
    return [v for v in reversed(found) if tuple(map(int, v.split(".")[:3])) >= OLDEST]


def unpack(project: str, version: str, files: re.Pattern[str] = _WANTED, what: str = "") -> Path:
    """A directory with the `files` of `project`, which are called `what`, from its wheel."""
    place = CACHE / "unpacked" / f"{project}-{version}{what}"
    wanted = place.with_name(place.name + ".wanted")
    with alone(place):
        if not place.exists() or not wanted.exists() or wanted.read_text() != files.pattern:
            shutil.rmtree(place, ignore_errors=True)
            wheels = CACHE / "wheels"
            pattern = f"{project.replace('-', '_')}-{version}-*.whl"
            if not list(wheels.glob(pattern)):
                pip(
                    sys.executable, "download", "--quiet", "--no-deps", "--only-binary", ":all:",
                    "--dest", str(wheels), f"{project}=={version}",
                )  # fmt: skip
            temporary = place.with_name(place.name + ".tmp")
            shutil.rmtree(temporary, ignore_errors=True)
            with zipfile.ZipFile(next(wheels.glob(pattern))) as wheel:
                wheel.extractall(temporary, [n for n in wheel.namelist() if files.match(n)])
            temporary.rename(place)
            wanted.write_text(files.pattern)
    return place


def release(version: str) -> Release:
    """Fetch and unpack sglang `version` and the flashinfer that it pins."""
    sglang = unpack("sglang", version)
    metadata = next(sglang.glob("*.dist-info/METADATA")).read_text()
    found = re.search(
        r"^Requires-Dist: flashinfer[_-]python(?:\[[^]]*\])?==([^;\s]+)", metadata, re.MULTILINE
    )
    if found is None:
        raise UnavailableError(f"sglang {version} does not say which flashinfer it wants")
    return Release(version, sglang, found[1], unpack("flashinfer-python", found[1]))


def no_expert_score(flashinfer: Path) -> str:
    """What flashinfer's DeepSeekV3 routing kernel scores "no expert" with: "-1", "-inf", or "not found".

    -1 beats an expert whose sigmoid score plus correction bias is lower, as GLM's may be.
    """
    for file in sorted(flashinfer.rglob("*.cu*")):
        found = re.search(r"\binvalidScore(?:Float)?\s*=\s*([^;]+);", file.read_text())
        if found:
            return "-inf" if "INFINITY" in found[1] else found[1].removesuffix(".F")
    return "not found"


def unknown_arguments(of: Release) -> set[str]:
    """Keywords that the layer passes to `trtllm_fp4_block_scale_moe` and flashinfer does not take.

    For releases whose layer makes the call itself, `FlashInferFP4MoE.forward` (0.5.9 and before); else empty.
    """
    name = "trtllm_fp4_block_scale_moe"
    tree = ast.parse((of.flashinfer / "flashinfer/fused_moe/core.py").read_text())
    made = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == name]
    takes = {a.arg for n in made for a in (*n.args.args, *n.args.kwonlyargs)}
    layer = of.sglang / "sglang/srt/layers/moe/fused_moe_triton/layer.py"
    calls = [
        n
        for n in ast.walk(ast.parse(layer.read_text()))
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == name
    ]
    return {k.arg for n in calls for k in n.keywords if k.arg is not None} - takes


def copies(of: Release, place: Path) -> dict[str, Path]:
    """Copies of the release in `place`: as it is, and with each mode of the edit made in place."""
    from entrypoint.errors import PatchError
    from entrypoint.prepare.patches.apply import apply_all

    made = {}
    for mode in ("off", "pad", "assert"):
        target = place / mode
        shutil.copytree(of.sglang, target)
        try:
            apply_all(target, modelopt=mode, where="inplace", run_dir=place, environ={})
        except PatchError as error:
            print(f"sglang {of.version}, mode {mode}: {error}", file=sys.stderr)
            continue
        made[mode] = target
    return made


def measure(
    sources: dict[str, Path],
    flashinfer: Path,
    runners: Iterable[str] = RUNNERS,
    widths: Iterable[int] = WIDTHS,
    gated: Iterable[bool] = (True, False),
) -> list[dict[str, Any]]:
    """One row per source, runner, kind of expert and width: `relative_error`, `rows`, `told`, or `error`."""
    request = {
        "flashinfer": str(flashinfer),
        "sources": {name: str(path) for name, path in sources.items()},
        "runners": list(runners),
        "gated": list(gated),
        "widths": list(widths),
    }
    done = subprocess.run(
        [torch_python(), str(HARNESS)], input=json.dumps(request), capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(STUBS)},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr)
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows
