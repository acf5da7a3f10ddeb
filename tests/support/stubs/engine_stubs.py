"""Stand-ins for what an engine imports and these tests do not have: torch, kernels, CUDA, the rest of SGLang.

The harness.py scripts run parts of released engines in environments that lack most of what those import.
`Stubs` is a finder that gives the parts their own source and everything else a module of `Stub`s. The scripts
run by themselves, outside of this repository's environment: PYTHONPATH holds this file's directory.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import types
from pathlib import Path


class Base:
    """What a class of a stub's is based on."""

    def __init_subclass__(cls, **options):
        pass


class Stub:
    """Whatever it is asked for: an attribute, a call, a base class, a decorator, a false condition."""

    known: dict[str, object] = {}  # noqa: RUF012
    """Attributes that are something else, by name, of every stub and of every module of stubs."""

    def __init__(self, *args, **kwargs):
        pass

    def __call__(self, *args, **kwargs):
        if len(args) == 1 and not kwargs and isinstance(args[0], (types.FunctionType, type)):
            return args[0]
        return Stub()

    def __getattr__(self, name):
        return attribute(name)

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

    def __int__(self):
        return 0

    def __fspath__(self):
        return "/stub"


def attribute(name):
    """The attribute `name` of a stub."""
    if name.startswith("__"):
        raise AttributeError(name)
    return Stub.known[name] if name in Stub.known else Stub()


class Stubs(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a module of stubs, or the release's own file, for the modules that a subclass names."""

    def stubbed(self, name: str) -> bool:
        """Whether this is for us to find."""
        raise NotImplementedError

    def source(self, name: str) -> Path | None:
        """The file that runs instead of stubs."""
        return None

    def find_spec(self, name, path=None, target=None):
        if not self.stubbed(name):
            return None
        file = self.source(name)
        if file is not None and file.is_file():
            return importlib.util.spec_from_file_location(name, file)
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__getattr__ = lambda name: self.attribute(spec.name, name)
        return module

    def attribute(self, module: str, name: str) -> object:
        """The attribute `name` of a module of stubs."""
        return attribute(name)

    def exec_module(self, module):
        pass


class Missing(Stubs):
    """Stubs for third-party packages; last in line, so only for those that are not installed."""

    def __init__(self, packages: set[str]):
        self.packages = packages

    def stubbed(self, name):
        return name.partition(".")[0] in self.packages
