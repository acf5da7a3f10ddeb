"""Imports an sglang release's own transfer code where nothing of sglang is installed; needs numpy only.

The modules of `REAL` run from the release's files. Every other module of sglang, and every third-party module
but numpy, is a module of `Stub`s. Used by harness.py.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import re
import sys
import types
from pathlib import Path

REAL = re.compile(r"sglang\.srt\.disaggregation\.(utils|base\.conn|(common|nixl|mooncake)\.[a-z_]+)")
"""Modules whose own source runs."""
INSTALLED = {"numpy", "harness_stubs", *sys.stdlib_module_names}
ABSENT = {"nixl", "mooncake"}
"""What the code can do without where it imports it; `harness.Network` stands in for both."""


class Base:
    """What a class of a stub's is based on."""

    def __init_subclass__(cls, **options):
        pass


class Stub:
    """Whatever it is asked for: an attribute, a call, a base class, a decorator, a false condition."""

    def __init__(self, *args, **kwargs):
        pass

    def __call__(self, *args, **kwargs):
        if len(args) == 1 and not kwargs and isinstance(args[0], (types.FunctionType, type)):
            return args[0]
        return Stub()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Stub()

    def __mro_entries__(self, bases):
        return (Base,)

    def __bool__(self):
        return False

    def __iter__(self):
        return iter(())

    def __len__(self):
        return 0

    def __contains__(self, item):
        return False

    def __getitem__(self, item):
        return Stub()

    def __enter__(self):
        return Stub()

    def __exit__(self, *error):
        return False

    def __or__(self, other):
        return Stub()

    __ror__ = __or__

    def __le__(self, other):
        return False

    __lt__ = __gt__ = __ge__ = __le__


class Loose(types.SimpleNamespace):
    """A namespace whose other attributes are stubs."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Stub()


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the release in `root`."""

    def __init__(self, root: Path):
        self.root = root

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top == "sglang":
            file = self.root.joinpath(*name.split(".")).with_suffix(".py")
            if REAL.fullmatch(name) and file.is_file():
                return importlib.util.spec_from_file_location(name, file)
        elif top in INSTALLED | ABSENT:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__getattr__ = lambda name: self._attribute(name)
        return module

    def _attribute(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Stub()

    def exec_module(self, module):
        pass


def load(root: Path, backend: str) -> types.ModuleType:
    """`sglang.srt.disaggregation.<backend>.conn` of the release in `root`, imported afresh."""
    for name in [n for n, module in sys.modules.items() if n.partition(".")[0] == "sglang"]:
        del sys.modules[name]
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, Finder)]
    # Before the installed packages: torch is among them where this runs, and is not needed.
    sys.meta_path.insert(0, Finder(root))
    return importlib.import_module(f"sglang.srt.disaggregation.{backend}.conn")
