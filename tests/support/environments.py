"""Environments of an engine's releases in the user's cache, made once for each state of their lock files.

An environment of another state is never touched; all of them can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.releases import alone

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements"


def cache() -> Path:
    """The directory of them all."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "glm47-runner")


def place(name: str, locks: Sequence[str]) -> Path:
    """The directory of environment `name`, made or not, that holds what the lock files `locks` say."""
    state = hashlib.sha256(f"{sys.version_info[:2]}".encode())
    for lock in locks:
        lines = (REQUIREMENTS / lock).read_text().splitlines()
        state.update("\n".join(line for line in lines if not line.startswith("#")).encode())
    return cache() / f"{name}-{state.hexdigest()[:12]}"


def made(home: Path, fill: Callable[[str], None]) -> str:
    """The interpreter of the environment at `home`; if it is not there yet, `fill` installs beside it.

    UnavailableError of `fill` when that cannot be done.
    """
    python = home / "bin" / "python"
    with alone(home):
        if (home / ".ready").exists():
            return str(python)
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        fill(str(python))
        (home / ".ready").touch()
    return str(python)
