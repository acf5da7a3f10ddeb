"""Patched copies outside site-packages, and the hook that makes every engine process import them.

The hook is a `sitecustomize` module in a directory of its own at the head of PYTHONPATH: Python runs it
before anything else, also in the children that multiprocessing spawns, which inherit the environment. It runs
the `sitecustomize` that it hides, so nobody else's is lost. Where Python ignores PYTHONPATH (-E, -I, -S),
there is no overlay; the engine is started with none of these, and children inherit the flags of their parent.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from entrypoint.base.files import replace_file

_HOOK = '''"""Imports patched copies of sglang modules in place of the originals."""

import importlib.machinery
import importlib.util
import os
import tempfile
import sys

COPIES = {copies!r}
"""Module name -> (patched copy, SHA-256 of the original it stands for)."""


class _Overlay:
    """Finds the patched copies, once it has seen that the original is the one they were made from."""

    @staticmethod
    def find_spec(fullname, path=None, target=None):
        if fullname not in COPIES:
            return None
        copy, sha256 = COPIES[fullname]
        original = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if original is None or original.origin is None:
            return None
        import hashlib

        with open(original.origin, "rb") as file:
            if hashlib.sha256(file.read()).hexdigest() != sha256:
                raise ImportError(
                    "cannot import %s: %s: changed since it was patched: restart the container"
                    % (fullname, original.origin),
                    name=fullname,
                )
        return importlib.util.spec_from_file_location(fullname, copy)


def _run_hidden():
    """Run the sitecustomize that this one hides, under its own name."""
    here = os.path.dirname(os.path.abspath(__file__))
    entries = [os.path.abspath(entry or os.getcwd()) for entry in sys.path]
    after = sys.path[entries.index(here) + 1 :] if here in entries else []
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", after)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


sys.meta_path.insert(0, _Overlay)
_run_hidden()
'''


@dataclass(frozen=True)
class Copy:
    """One module that the overlay stands in for."""

    path: str
    """Inside the sglang package."""
    data: bytes
    """The patched source."""
    original: bytes
    """The file in the package, as it is."""


def write(run_dir: Path, copies: Sequence[Copy], environ: Mapping[str, str]) -> dict[str, str]:
    """Lay `copies` and the hook down under `run_dir`; returns the variables that engine processes need.

    The directory is named after its content, so containers that share `run_dir` do not meet. OSError when it
    cannot be written. A PYTHONPATH in `environ` is kept, behind ours.
    """
    key = hashlib.sha256()
    for copy in copies:
        for part in (copy.path.encode(), copy.original, copy.data):
            key.update(hashlib.sha256(part).digest())
    base = run_dir.absolute() / "overlay" / key.hexdigest()[:16]
    table = {}
    for copy in copies:
        target = base / "sources" / copy.path
        _put(target, copy.data)
        table["sglang." + copy.path.removesuffix(".py").replace("/", ".")] = (
            str(target),
            hashlib.sha256(copy.original).hexdigest(),
        )
    hook = base / "site" / "sitecustomize.py"
    _put(hook, _HOOK.replace("{copies!r}", repr(table)).encode())
    own = str(hook.parent)
    kept = (
        [e for e in environ.get("PYTHONPATH", "").split(os.pathsep) if e != own]
        if environ.get("PYTHONPATH")
        else []
    )
    return {"PYTHONPATH": os.pathsep.join([own, *kept])}


def _put(path: Path, data: bytes) -> None:
    """Make `data` the content of `path`, unless it is already."""
    try:
        if path.read_bytes() == data:
            return
    except FileNotFoundError:
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, data)
