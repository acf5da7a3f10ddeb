"""Installs the CPU engine into the user's cache, once for each state of the lock files.

`python -m tests.support.cpu_engine [RELEASE…]` does that ahead of the tests: about 70 seconds and 2.5 GB a
release. A directory of another state is never touched; all of them can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from bench.releases import UnavailableError, alone, install_torch, pip

ROOT = Path(__file__).resolve().parents[3]
REQUIREMENTS = ROOT / "requirements"
PINNED = "0.5.6.post2"
"""SGLang's release in the image's default base."""
NEWER = ("0.5.14", "0.5.23")
OLDEST_PYTHON = (3, 11)
"""Of the packages' locked versions."""


def cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "glm47-runner")


def place(release: str) -> Path:
    """The directory of the environment that holds `release`, installed or not."""
    state = hashlib.sha256(f"{sys.version_info[:2]}".encode())
    for name in ("torch.txt", f"cpu-engine-{release}.txt"):
        lines = (REQUIREMENTS / name).read_text().splitlines()
        state.update("\n".join(line for line in lines if not line.startswith("#")).encode())
    return cache() / f"cpu-engine-{release}-{state.hexdigest()[:12]}"


def engine_python(release: str = PINNED) -> str:
    """The interpreter that holds SGLang `release` and the Dynamo that goes with it; installs them if need be.

    Raises UnavailableError when that cannot be done.
    """
    if sys.version_info < OLDEST_PYTHON:
        raise UnavailableError("the CPU engine needs Python 3.11 or 3.12: make clean, then set PYTHON to one")
    home = place(release)
    python = home / "bin" / "python"
    with alone(home):
        if (home / ".ready").exists():
            return str(python)
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        install_torch(str(python))
        lock = REQUIREMENTS / f"cpu-engine-{release}.txt"
        pip(str(python), "install", "--quiet", "--no-deps", "--require-hashes", "--requirement", str(lock))
        (home / ".ready").touch()
    return str(python)
