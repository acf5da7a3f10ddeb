"""argparse, with its complaints caught as they are raised and its parsers remembered.

Runs in the engine's interpreter (`asked`): nothing but the standard library is imported here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from entrypoint.prepare.parser.hollow import Hollow


class RefusedError(Exception):
    """A parser called its `error`."""

    def __init__(self, text: str, names: Sequence[str]) -> None:
        super().__init__(text)
        self.names = names
        """Of the option that it is about; empty: none, or only in the text."""


class UnknownError(Exception):
    """Words that no parser took."""

    def __init__(self, words: Sequence[str]) -> None:
        super().__init__(" ".join(words))
        self.words = words


class Watched:
    """Every parser that is used from now on."""

    def __init__(self) -> None:
        self.parsers: list[argparse.ArgumentParser] = []
        self.left: Sequence[str] = ()
        """What the last one did not know."""
        own = argparse.ArgumentParser.parse_known_args

        def parse_known(parser: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
            if parser not in self.parsers:
                self.parsers.append(parser)
            for action in parser._actions:
                _take_anything_unknown(action)
            values, self.left = own(parser, args, namespace)
            return values, self.left

        replaced: Any = argparse.ArgumentParser
        replaced.parse_known_args = parse_known
        replaced.parse_args = _parse
        replaced.error = _error

    def options(self) -> list[dict[str, list[str]]]:
        """Of each parser, what it takes: the choices by option, where there are some."""
        return [
            {o: sorted(map(str, a.choices or ())) for o, a in parser._option_string_actions.items()}
            for parser in self.parsers
        ]

    def actions(self) -> dict[str, argparse.Action]:
        """By option, of all parsers."""
        return {o: a for parser in self.parsers for o, a in parser._option_string_actions.items()}


def _parse(parser: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
    values, left = parser.parse_known_args(args, namespace)
    if left:
        raise UnknownError(left)
    return values


def _error(parser: argparse.ArgumentParser, text: str) -> NoReturn:
    error = sys.exc_info()[1]
    if isinstance(error, argparse.ArgumentError):
        raise RefusedError(error.message, (error.argument_name or "").split("/"))
    raise RefusedError(text, ())


def _take_anything_unknown(action: argparse.Action) -> None:
    """Where choices or the type came from a hollow module, nobody here knows what is taken."""
    choices = action.choices
    if choices is not None and (not list(choices) or any(isinstance(one, Hollow) for one in choices)):
        action.choices = None
    if isinstance(action.type, Hollow):
        action.type = None
