"""What consists of many programs: a context manager that is up as a whole, or has left nothing behind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import TypeVar

T = TypeVar("T", bound="Started")


class Started(ABC):
    """`_start` puts what undoes each of its steps on `_stack`."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self: T) -> T:
        # What was started is stopped also when the rest does not come up.
        with self._stack:
            self._start()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @abstractmethod
    def _start(self) -> None:
        """Start everything."""
