"""Data classes that compile their methods late are data classes like all others."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.base.late import late_dataclasses

PLAIN = dataclasses._create_fn  # type: ignore[attr-defined]
NAMES = ("alpha", "beta", "gamma", "delta")
FLAGS = ("frozen", "eq", "order", "repr", "unsafe_hash", "slots", "kw_only")
flags = st.fixed_dictionaries({flag: st.booleans() for flag in FLAGS}).filter(
    lambda f: (f["eq"] or not f["order"]) and not (f["unsafe_hash"] and f["frozen"] and f["eq"])
)
values = st.lists(st.integers(-2, 2), min_size=len(NAMES), max_size=len(NAMES))


def made(flags: dict[str, Any], defaults: int) -> type[Any]:
    """A data class of four whole numbers, the last `defaults` of them with a default."""
    fields: list[Any] = [(name, int) for name in NAMES[: len(NAMES) - defaults]]
    fields += [(name, int, dataclasses.field(default=7)) for name in NAMES[len(NAMES) - defaults :]]
    return dataclasses.make_dataclass("Four", fields, **flags)


def outcome(call: Callable[[], object]) -> object:
    """What a call gives, or which error, in words that do not name an address."""
    try:
        return call()
    except Exception as error:
        return type(error), str(error)


def behaviour(kind: type[Any], one: list[int], other: list[int], defaults: int) -> list[object]:
    """All that can be seen of instances of `kind`."""
    a, b = (kind(**dict(zip(NAMES, numbers, strict=True))) for numbers in (one, other))
    short = dict(zip(NAMES[: len(NAMES) - defaults], one, strict=False))

    def assign() -> object:
        a.alpha = 9
        return a.alpha

    def remove() -> object:
        del b.beta
        return hasattr(b, "beta")

    own = {name for parent in kind.__mro__[:-1] for name in vars(parent)}
    return [
        outcome(lambda: dataclasses.astuple(kind(**short))),
        outcome(lambda: kind(*one) and None),
        outcome(lambda: kind(unknown=1)),
        "__eq__" not in own or (a == b, a == copy.copy(a), a == dataclasses.replace(a), a != 3),
        outcome(lambda: (a < b, a <= b, a > b, a >= b)) if "__eq__" in own else None,
        "__hash__" not in own or outcome(lambda: hash(a)),
        "__repr__" not in own or repr(a),
        outcome(assign),
        outcome(remove),
        [field.name for field in dataclasses.fields(kind)],
        {name: f"{getattr(kind, name).__qualname__}" for name in ("__init__", "__eq__", "__repr__")},
    ]


@given(flags, values, values, st.integers(0, len(NAMES)))
def test_they_behave_as_others_do(
    flags: dict[str, bool], one: list[int], other: list[int], defaults: int
) -> None:
    with late_dataclasses():
        late = made(flags, defaults)
    plain = made(flags, defaults)
    assert behaviour(late, one, other, defaults) == behaviour(plain, one, other, defaults)


def test_a_method_takes_its_place_when_it_is_called() -> None:
    with late_dataclasses():

        @dataclasses.dataclass(frozen=True)
        class Point:
            x: int

        class Below(Point):
            pass

    before = Point.__init__
    assert Below(3) == Below(3) and Below(3) != Point(3)
    assert Point.__init__ is not before and "__init__" not in vars(Below)
    assert Point.__init__.__code__.co_varnames == ("self", "x")


@dataclasses.dataclass(frozen=True)
class Plain:
    x: int
    y: tuple[int, ...] = ()


with late_dataclasses():

    @dataclasses.dataclass(frozen=True)
    class Late:
        x: int
        y: tuple[int, ...] = ()


def test_what_no_method_was_called_of_crosses_to_another_process() -> None:
    """A plan does: nothing is made there, all is unpickled."""
    with late_dataclasses():
        assert pickle.loads(pickle.dumps(Late(1, (2,)))) == Late(1, (2,))
    there = object.__new__(Late)
    there.__dict__.update(x=1, y=(2,))
    with pytest.raises(dataclasses.FrozenInstanceError):
        there.x = 2  # type: ignore[misc]
    assert there == Late(1, (2,)) and hash(there) == hash(Late(1, (2,)))


def test_threads_may_be_the_first_to_call() -> None:
    for _ in range(50):
        with late_dataclasses():

            @dataclasses.dataclass(frozen=True)
            class Point:
                x: int

        begin = threading.Barrier(4)
        found: list[object] = []

        def make(begin: threading.Barrier = begin, kind: Any = Point, found: list[object] = found) -> None:
            begin.wait()
            found.append(kind(1))

        threads = [threading.Thread(target=make) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [Point(1)] * 4


def test_afterwards_everything_is_as_before() -> None:
    with pytest.raises(ZeroDivisionError), late_dataclasses():
        assert dataclasses._create_fn is not PLAIN  # type: ignore[attr-defined]
        raise ZeroDivisionError
    assert dataclasses._create_fn is PLAIN  # type: ignore[attr-defined]


def test_a_python_without_the_function_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(dataclasses, "_create_fn")
    with late_dataclasses():
        assert not hasattr(dataclasses, "_create_fn")
