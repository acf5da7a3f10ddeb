"""Data classes whose methods are compiled when they are first called.

`dataclasses` writes six methods for each frozen class and compiles each by itself. A start defines a hundred
such classes, pydantic's among them, and calls few of the methods: a quarter of the way to the first process
(docs/decisions/start.md). Python 3.13 compiles a class's methods at once and has no `_create_fn`: nothing is
done there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Method = Callable[..., Any]


@contextmanager
def late_dataclasses() -> Iterator[None]:
    """Within it, `dataclasses` compiles no method of a new class before it is called. Use it in one thread.

    The methods do what they always do, and take the place of what calls them here.
    """
    compiled: Callable[..., Method] | None = getattr(dataclasses, "_create_fn", None)
    if compiled is None:
        yield
        return

    def late(name: str, *args: Any, **kwargs: Any) -> Method:
        return _late(name, lambda: compiled(name, *args, **kwargs))

    dataclasses._create_fn = late  # type: ignore[attr-defined]
    try:
        yield
    finally:
        dataclasses._create_fn = compiled  # type: ignore[attr-defined]


def _late(name: str, compiled: Callable[[], Method]) -> Method:
    made: list[Method] = []

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not made:
            # Two threads may both come here: each compiles the same.
            made.append(compiled())
            made[0].__qualname__ = method.__qualname__
            for owner in type(self).__mro__:
                if owner.__dict__.get(name) is method:
                    setattr(owner, name, made[0])
        return made[0](self, *args, **kwargs)

    method.__name__ = name  # `dataclasses` goes by it
    return method
