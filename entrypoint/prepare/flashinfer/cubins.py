"""Links to the cubins of the flashinfer_cubin package, where FlashInfer may add a lock and a link of its own.

After 0.6.7 FlashInfer takes a lock and makes a link among its cubins before it compiles what includes their
headers (`ensure_symlink`), the lock even when the link is there; before 0.6.16 no variable moves that
while flashinfer_cubin is installed. The package, 1.9 GB in 0.6.12, finds its cubins beside its own
`__init__.py`. So a directory of that name in front of it on PYTHONPATH, with links to everything in it, is as
good as the package, and can be written.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import uuid
from pathlib import Path

PACKAGE = "flashinfer_cubin"
CUBINS = "cubins"
OWN = "flashinfer"
"""The directory among the cubins that FlashInfer makes."""


def makes_links(package: Path) -> bool:
    """Whether the FlashInfer in `package` makes links among its cubins."""
    try:
        return b"def ensure_symlink(" in (package / "jit" / "cubin_loader.py").read_bytes()
    except OSError:
        return False


def may_write(cubins: Path) -> OSError | None:
    """Try what FlashInfer does in the directory `cubins`; the error, if it fails."""
    try:
        for place in (cubins, *_below(cubins / OWN)):
            if place.is_dir():
                with tempfile.TemporaryFile(dir=place):
                    pass
            else:
                os.close(os.open(place, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return error
    return None


def _below(own: Path) -> list[Path]:
    """`own`, its directories and its locks, as far as they are there; not its links."""
    if not own.is_dir():
        return []
    return [own, *(p for p in own.rglob("*") if not p.is_symlink() and (p.is_dir() or p.suffix == ".lock"))]


def link(package: Path, base: Path) -> Path:
    """Link everything in the flashinfer_cubin `package` below `base`; returns what goes on PYTHONPATH.

    The place is named after the package and its cubins, and stays the same from start to start: compiled
    kernels depend on it. OSError when it cannot be written.
    """
    package = package.absolute()
    names = sorted(entry.name for entry in (package / CUBINS).iterdir())
    key = hashlib.sha256("\n".join([str(package), *names]).encode()).hexdigest()[:12]
    target = base.absolute() / key / PACKAGE
    (target / CUBINS).mkdir(parents=True, exist_ok=True)
    for entry in package.iterdir():
        if entry.name not in (CUBINS, "__pycache__"):
            _link(target / entry.name, entry)
    for name in names:
        if name != OWN:
            _link(target / CUBINS / name, package / CUBINS / name)
    if error := may_write(target / CUBINS):
        raise error
    return target.parent


def _link(link: Path, to: Path) -> None:
    """Make `link` a link to `to`, whole or not at all: another container may do the same at this moment."""
    try:
        if link.readlink() == to:
            return
    except OSError:
        pass
    temporary = link.with_name(f".{link.name}.{uuid.uuid4().hex}")
    temporary.symlink_to(to)
    temporary.replace(link)
