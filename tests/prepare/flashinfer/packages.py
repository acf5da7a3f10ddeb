"""Real FlashInfer releases with a made-up flashinfer_cubin beside them, and who may not write them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from bench import releases

ROOT = Path(__file__).resolve().parents[3]
HARNESS = Path(__file__).with_name("harness.py")
ENGINE = ROOT / ".venv/engine/bin/python"
"""An interpreter that has filelock, as every engine's; no torch."""
PINNED, LINKING, NEWEST = "0.5.3", "0.6.12", "0.7.2"
"""What the image's default base has; one that makes links among its cubins; the newest."""
FUNCTIONS = (
    "gen_cutlass_fused_moe_sm100_module",
    "gen_cutlass_fused_moe_sm103_module",
    "gen_trtllm_gen_fused_moe_sm100_module",
    "gen_trtllm_gen_gemm_module",
    "gen_moe_utils_module",
    "gen_trtllm_gen_routing_module",
)
"""What a rank may come to call for this model on GB200 and GB300, whichever MoE runner it has."""
STRANGER = 54321
_PYTHON_FILES = re.compile(r"^(flashinfer/(?!data/).*\.py|[^/]+\.dist-info/METADATA)$")


def unpacked(version: str) -> Path:
    """A directory with the Python files of a release. releases.UnavailableError when it cannot be had."""
    return releases.unpack("flashinfer-python", version, _PYTHON_FILES, "-python")


def whole(version: str, place: Path) -> Path:
    """A directory to import the release from, and flashinfer_cubin."""
    shutil.copytree(unpacked(version), place, copy_function=os.link)
    # What is left out of the wheel, 20 MB of headers and sources, has this directory.
    (place / "flashinfer/data/csrc/nv_internal/tensorrt_llm").mkdir(parents=True)
    harness(place, place.parent / "workspace", "cubins", str(place))
    return place


def environment(place: Path, workspace: Path) -> dict[str, str]:
    """Of a process that finds the release in `place`. HOME is nobody's: no account has this uid."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": "/",
        "PYTHONPATH": f"{place}:{releases.STUBS}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "FLASHINFER_WORKSPACE_BASE": str(workspace),
    }


def harness(place: Path, workspace: Path, *words: str) -> str:
    done = subprocess.run(
        [ENGINE, HARNESS, *words], env=environment(place, workspace), capture_output=True, text=True, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def fences() -> dict[str, Any]:
    """By name, a function from a directory to the words that start a command which cannot write there."""
    return {"read-only": read_only, "stranger": stranger}


def read_only(place: Path) -> list[str] | None:
    """In a mount of its own; None where this machine lets nobody do that."""
    words = ["unshare", "--mount", *([] if os.getuid() == 0 else ["--map-root-user"])]
    if shutil.which("unshare") is None or subprocess.run([*words, "true"], capture_output=True).returncode:
        return None
    script = f'mount --bind {place} {place} && mount -o remount,ro,bind {place} && exec "$@"'
    return [*words, "sh", "-c", script, "sh"]


def stranger(place: Path) -> list[str] | None:
    """Without a right to the files: they are another user's, and root's privilege is gone."""
    # Not the files: they are links to those of other tests.
    own = ["find", str(place), "(", "-type", "d", "-o", "-name", "*.lock", ")", "-exec"]
    if os.getuid() == 0:
        subprocess.run([*own, "chown", str(STRANGER), "{}", "+"], check=True)
        if shutil.which("setpriv") is None:
            return None
        return ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    subprocess.run([*own, "chmod", "a-w", "{}", "+"], check=True)
    return ["env"]


def run(words: list[str], *command: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*words, *command], env=env, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False
    )
