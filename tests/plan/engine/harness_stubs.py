"""Imports an sglang release's own transfer code where nothing of sglang is installed; needs numpy only.

The modules of `REAL` run from the release's files. Every other module of sglang, and every third-party module
but numpy, is a module of `Stub`s. Used by harness.py.
"""

from __future__ import annotations

import importlib
import re
import sys
import types
from pathlib import Path

from engine_stubs import Stubs, attribute

REAL = re.compile(r"sglang\.srt\.disaggregation\.(utils|base\.conn|(common|nixl|mooncake)\.[a-z_]+)")
"""Modules whose own source runs."""
INSTALLED = {"numpy", *sys.stdlib_module_names}
ABSENT = {"nixl", "mooncake"}
"""What the code can do without where it imports it; `harness.Network` stands in for both."""


class Loose(types.SimpleNamespace):
    """A namespace whose other attributes are stubs."""

    def __getattr__(self, name):
        return attribute(name)


class Finder(Stubs):
    """Finds the release in `root`."""

    def __init__(self, root: Path):
        self.root = root

    def stubbed(self, name):
        return name.partition(".")[0] not in INSTALLED | ABSENT

    def source(self, name):
        return self.root.joinpath(*name.split(".")).with_suffix(".py") if REAL.fullmatch(name) else None


def load(root: Path, backend: str) -> types.ModuleType:
    """`sglang.srt.disaggregation.<backend>.conn` of the release in `root`, imported afresh."""
    for name in [n for n, module in sys.modules.items() if n.partition(".")[0] == "sglang"]:
        del sys.modules[name]
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, Finder)]
    # Before the installed packages: torch is among them where this runs, and is not needed.
    sys.meta_path.insert(0, Finder(root))
    return importlib.import_module(f"sglang.srt.disaggregation.{backend}.conn")
