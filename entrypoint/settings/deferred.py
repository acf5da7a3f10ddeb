"""Modules that a library imports and that we never use: put in place empty, and loaded when they are.

pydantic-settings imports asyncio for its command-line source, pydantic importlib.metadata for its plugins.
Neither is used here, and together they are an eighth of the way to the first process.
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


@contextmanager
def quick_pydantic() -> Iterator[None]:
    """Within it, importing pydantic and pydantic-settings, and making models, takes less."""
    defer("asyncio")
    defer("importlib.metadata", "entry_points")
    before = os.environ.get(PLUGINS)
    os.environ[PLUGINS] = "__all__"
    try:
        yield
    finally:
        # What the engines are given is their own business.
        if before is None:
            del os.environ[PLUGINS]
        else:
            os.environ[PLUGINS] = before


def defer(name: str, *functions: str) -> None:
    """Load module `name` when one of its attributes is first used; `functions` when one is called."""
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
        return getattr(importlib.import_module(self.__name__), name)


def _calls(module: _Deferred, function: str) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        return module.__getattr__(function)(*args, **kwargs)

    return call
