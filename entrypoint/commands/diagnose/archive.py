"""Archives by the suffix of their name: .tar.zst, and .tar.gz, which every machine can read."""

from __future__ import annotations

import importlib
import sys
import tarfile
from pathlib import Path
from typing import Any

from entrypoint.errors import ConfigError

ZSTD, GZIP = (".tar.zst", ".tzst"), (".tar.gz", ".tgz")
_MAGIC = b"\x28\xb5\x2f\xfd"


def must_be_known(path: Path) -> None:
    """ConfigError (78) where `path` has no suffix that tells what to write."""
    if not path.name.endswith((*ZSTD, *GZIP)):
        raise ConfigError(f"cannot write a bundle: {path}: name it FILE{ZSTD[0]} or FILE{GZIP[0]}")


def writing(path: Path) -> tarfile.TarFile:
    """A new archive at `path`. OSError when it cannot be written."""
    if path.name.endswith(ZSTD):
        made: tarfile.TarFile = _zstd().open(path, "w:zst")
        return made
    return tarfile.open(path, "w:gz")


def reading(path: Path) -> tarfile.TarFile:
    """The archive at `path`, whatever its name. OSError or TarError when it is none."""
    with path.open("rb") as file:
        zstd = file.read(len(_MAGIC)) == _MAGIC
    if zstd:
        found: tarfile.TarFile = _zstd().open(path, "r:zst")
        return found
    return tarfile.open(path)


def _zstd() -> Any:
    """Python's own from 3.14 on, before that the same from a package."""
    return importlib.import_module("tarfile" if sys.version_info >= (3, 14) else "backports.zstd.tarfile")
