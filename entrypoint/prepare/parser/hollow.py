"""Modules that have every name, so that a release's argument parser is loaded without torch.

What makes up its options is imported as it is; the rest is hollow. Importing all of it takes ten seconds.
Runs in the engine's interpreter (`asked`): nothing but the standard library is imported here.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Iterator, Sequence
from typing import Any

REAL = ("dynamo", "yaml", "_yaml", "msgspec", "packaging", "typing_extensions")
"""Packages that parsers need as they are, beside the standard library."""
READ = (
    "sglang.srt.server_args", "sglang.srt.server_args_config_parser", "sglang.srt.arg_groups",
    "sglang.srt.environ", "sglang.srt.utils.common", "sglang.srt.parser.reasoning_parser",
    "sglang.srt.parser.reasoning_parser_names", "sglang.srt.function_call",
    "sglang.srt.model_executor.cuda_graph_config", "sglang.jit_kernel.kv_canary.consts",
    "sglang.kernels.ops.kv_canary.consts",
)  # fmt: skip
"""What SGLang's options are made of, in 0.5.6.post2 to 0.5.23. The rest of it is hollow."""
ABSENT = {"torch": ("npu", "hpu", "xpu", "musa", "mps", "mlu")}
"""Attributes whose mere presence means another kind of accelerator."""


class Hollow(type):
    """A class that has every attribute, takes every call, and is nothing."""

    def __getattr__(cls, name: str) -> Any:
        if _is_special(name):
            raise AttributeError(name)
        made = Hollow(name, (Nothing,), {"__module__": cls.__module__, "made": True})
        setattr(cls, name, made)
        return made

    def __call__(cls, *args: Any, **options: Any) -> Any:
        if "made" not in vars(cls) and cls is not Nothing:
            return type.__call__(cls)  # a class of the release's own, on a hollow one
        decorated = args[0] if len(args) == 1 and not options else None
        return decorated if isinstance(decorated, types.FunctionType) else cls

    def __iter__(cls) -> Iterator[Any]:
        return iter(())

    def __bool__(cls) -> bool:
        return False

    def __enter__(cls) -> Any:
        return cls

    def __exit__(cls, *rest: Any) -> None:
        return None

    def __getitem__(cls, key: Any) -> Any:
        return cls

    def __or__(cls, other: Any) -> Any:
        return cls

    def __lt__(cls, other: Any) -> bool:
        return False

    __ror__ = __or__
    __le__ = __gt__ = __ge__ = __lt__


class Nothing(metaclass=Hollow):
    """What every hollow class is one of."""

    def __init_subclass__(cls, **options: Any) -> None:
        return None

    def __init__(self, *args: Any, **options: Any) -> None:
        return None


class HollowModule(types.ModuleType):
    """A module that has every name."""

    def __getattr__(self, name: str) -> Any:
        if _is_special(name) or name in ABSENT.get(self.__name__, ()):
            raise AttributeError(name)
        made = Hollow(name, (Nothing,), {"__module__": self.__name__, "made": True})
        setattr(self, name, made)
        return made


class Loader(importlib.abc.Loader):
    """Loads a module by `real`, or leaves it hollow."""

    def __init__(self, real: Any, doubts: list[str]) -> None:
        self._real, self._doubts = real, doubts

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """An empty one."""
        made = HollowModule(spec.name)
        if self._real is None:
            made.__dict__["__version__"] = "99"
        return made

    def exec_module(self, module: types.ModuleType) -> None:
        """Run its own code. What that stumbles over is a doubt."""
        if self._real is None:
            return
        try:
            self._real.exec_module(module)
        except Exception as error:
            self._doubts.append(f"{module.__name__}: {error!r}")


class Finder(importlib.abc.MetaPathFinder):
    """Finds everything: what parsers need as it is, anything else hollow."""

    def __init__(self) -> None:
        self.doubts: list[str] = []

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """None where Python's own finders are to look."""
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names:
            return None
        found = importlib.machinery.PathFinder.find_spec(name, path) if top in (*REAL, "sglang") else None
        if found is None:
            return importlib.machinery.ModuleSpec(name, Loader(None, self.doubts), is_package=True)
        if top != "sglang":
            return None
        read = any(name == part or name.startswith(f"{part}.") for part in READ)
        found.loader = Loader(found.loader if read else None, self.doubts)
        return found


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")
