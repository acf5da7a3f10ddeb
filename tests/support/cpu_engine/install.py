"""Installs the CPU engine into the user's cache, once for each state of the lock files.

`python -m tests.support.cpu_engine [RELEASE…]` does that ahead of the tests: about 70 seconds and 2.5 GB a
release.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench.releases import UnavailableError, install_torch, pip
from tests.support import environments

PINNED = "0.5.6.post2"
"""SGLang's release in the image's default base."""
NEWER = ("0.5.14", "0.5.23")
OLDEST_PYTHON = (3, 11)
"""Of the packages' locked versions."""


def place(release: str) -> Path:
    """The directory of the environment that holds `release`, installed or not."""
    return environments.place(f"cpu-engine-{release}", ("torch.txt", _lock(release)))


def engine_python(release: str = PINNED) -> str:
    """The interpreter that holds SGLang `release` and the Dynamo that goes with it; installs them if need be.

    Raises UnavailableError when that cannot be done.
    """
    if sys.version_info < OLDEST_PYTHON:
        raise UnavailableError("the CPU engine needs Python 3.11 or 3.12: make clean, then set PYTHON to one")

    def fill(python: str) -> None:
        install_torch(python)
        lock = environments.REQUIREMENTS / _lock(release)
        pip(python, "install", "--quiet", "--no-deps", "--require-hashes", "--requirement", str(lock))

    return environments.made(place(release), fill)


def _lock(release: str) -> str:
    return f"cpu-engine-{release}.txt"
