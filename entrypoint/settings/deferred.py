"""Modules that others import and nothing here uses: put in place empty, and loaded when they are used.

pydantic and pydantic-settings import types that no setting has (UUID, Decimal, time zones), a source for the
command line with argparse and asyncio, one for .env with logging, and importlib.metadata for plugins. None of
it is used here (docs/decisions/start.md says what it takes).
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

PLUGINS = "PYDANTIC_DISABLE_PLUGINS"
"""pydantic's own variable. Its plugins are looked for in every installed package."""
STOOD_IN = (
    "argparse",
    "decimal",
    "dotenv",
    "fractions",
    "importlib.resources.abc",
    "logging",
    "secrets",
    "uuid",
    "zoneinfo",
)
"""pydantic and its settings take names of these that they compare with, or use in what is not used here."""


@contextmanager
def quick_pydantic() -> Iterator[None]:
    """Within it, importing pydantic and pydantic-settings, and making models, takes less.

    Import nothing else within it but settings: a name taken from a module of STOOD_IN stays a stand-in.
    """
    defer("asyncio")
    defer("importlib.metadata", "entry_points")
    before = os.environ.get(PLUGINS)
    os.environ[PLUGINS] = "__all__"
    # Where pydantic has been imported already there is nothing to save.
    names = [name for name in STOOD_IN if name not in sys.modules] if "pydantic" not in sys.modules else []
    stand_ins = [_StandIns(name) for name in names]
    sys.modules.update(zip(names, stand_ins, strict=True))
    try:
        yield
    finally:
        for module in stand_ins:
            module.end()
        # What the engines are given is their own business.
        if before is None:
            del os.environ[PLUGINS]
        else:
            os.environ[PLUGINS] = before


class _StandIns(ModuleType):
    """A module of classes that are equal to nothing; whoever calls one gets what the real one gives."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            return _stand_in(self, self.__name__, name)
        return getattr(importlib.import_module(self.__name__), name)

    def end(self) -> None:
        """Give way to the real module, also for those who have imported this one."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        for name in [name for name, value in vars(self).items() if isinstance(value, _Kind)]:
            delattr(self, name)


def _stand_in(holder: Any, module: str, name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    made = _Kind(name, (_StandIn,), {"__module__": module})
    setattr(holder, name, made)
    return made


class _Kind(type):
    def __getattr__(cls, name: str) -> Any:
        return _stand_in(cls, cls.__module__, name)  # a method of the real class, named in a class's body


class _StandIn(metaclass=_Kind):
    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return _Late(cls.__module__, cls.__name__, args, kwargs)


class _Late:
    """What a call has given, made when something of it is used: a module's own logger, for one."""

    def __init__(self, *call: Any) -> None:
        self._call = call

    def __getattr__(self, name: str) -> Any:
        module, function, args, kwargs = self._call
        return getattr(getattr(_loaded(module), function)(*args, **kwargs), name)


def _loaded(name: str) -> ModuleType:
    module = importlib.import_module(name)
    if not isinstance(module, _StandIns):
        return module
    module.end()
    return importlib.import_module(name)


def defer(name: str, *functions: str, kinds: tuple[str, ...] = ()) -> None:
    """Load module `name` when one of its attributes is first used; `functions` when one is called.

    `kinds` are classes that others ask isinstance for: nothing is one of them before the module is loaded.
    """
    if name in sys.modules:
        return
    package, _, child = name.rpartition(".")
    parent = importlib.import_module(package) if package else None
    spec = PathFinder.find_spec(name, parent.__path__ if parent else None)
    if spec is None:
        return
    module = _Deferred(spec)
    if functions:
        module.__path__ = spec.submodule_search_locations or []  # `from … import` asks for it
    for function in functions:
        setattr(module, function, _calls(module, function))
    for kind in kinds:
        setattr(module, kind, type(kind, (), {"__new__": _makes(module, kind)}))
    sys.modules[name] = module
    if parent:
        setattr(parent, child, module)


class _Deferred(ModuleType):
    # importlib.util.LazyLoader is the library's way, but in Python 3.10 to 3.12 an `import` of what it made
    # already loads it.
    def __init__(self, spec: ModuleSpec) -> None:
        super().__init__(spec.name)
        self.__spec__ = spec

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        real = importlib.import_module(self.__name__)
        for key in [key for key in vars(self) if not key.startswith("__")]:
            delattr(self, key)
        return getattr(real, name)


def _makes(module: _Deferred, kind: str) -> Any:
    def new(_: type, *args: Any, **kwargs: Any) -> Any:
        return module.__getattr__(kind)(*args, **kwargs)

    return new


def _calls(module: _Deferred, function: str) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        return module.__getattr__(function)(*args, **kwargs)

    return call
