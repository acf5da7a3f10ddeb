"""Runs in the engine's interpreter: what the release's own parser says to a command line.

The parser is the release's own code, as `python -m dynamo.…` runs it, up to the point where it would look at
the model and the GPU (`ServerArgs.from_cli_args`).

Standard input is a JSON object: `module`, `groups` (each option with its values) and `wanted` (names of
values). So is the answer on standard output: `complaints`, `abbreviations`, `values`, and `doubts` about what
could not be loaded, with which nothing else in it counts.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import json
import logging
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from entrypoint.prepare.parser.hollow import Finder, Hollow
from entrypoint.prepare.parser.watched import RefusedError, UnknownError, Watched

PARSERS = {
    "dynamo.sglang": "dynamo.sglang.args",
    "dynamo.frontend": "dynamo.frontend.main",
    "dynamo.mocker": "dynamo.mocker.args",
}
"""Where each command has its `parse_args`."""
FETCHES = ("fetch_llm", "fetch_model")
"""What `dynamo.sglang` downloads a model with, when its directory is not there (yet)."""
ROUNDS = 20
"""Complaints at most: each takes its words away, and the rest is parsed again."""
OWN_WORDS = (ValueError, FileNotFoundError)
"""What Dynamo raises about arguments, beside argparse's own errors."""
_AMBIGUOUS = re.compile(r"ambiguous option: (\S+?)(?:=\S*)? could match")

Groups = list[list[str]]


class ParsedError(Exception):
    """The command line was read."""

    def __init__(self, values: object) -> None:
        super().__init__()
        self.values = values


class Question:
    """One command line of one module, and what is said to it."""

    def __init__(self, module: str, groups: Groups, doubts: list[str]) -> None:
        self._watched = Watched()
        self._groups, self._doubts = [list(group) for group in groups], doubts
        self._logged = _Logged()
        self._module = module
        place = importlib.import_module(PARSERS[module])
        self._parse: Any = place.parse_args
        if isinstance(self._parse, Hollow):
            raise ModuleNotFoundError(f"{module} is not installed")
        if module == "dynamo.sglang":
            if isinstance(place.ServerArgs, Hollow):
                raise ModuleNotFoundError("sglang is not installed")
            _stop_behind_the_parser(place)
        logging.getLogger().addHandler(self._logged)

    def answer(self, wanted: Sequence[str]) -> dict[str, Any]:
        """All that is to be said of it."""
        complaints, values = [], None
        for _ in range(ROUNDS):
            complaint, values = self._once()
            if complaint is None:
                break
            complaints.append(complaint)
            if not complaint["flag"]:
                break
        known = self._watched.actions()
        short = {group[0]: _full(group[0], known) for group in self._groups if group[0] not in known}
        found = {name: getattr(values, name) for name in wanted if hasattr(values, name)}
        return {
            "complaints": complaints,
            "abbreviations": {flag: full for flag, full in short.items() if full},
            "values": {k: v for k, v in found.items() if isinstance(v, str | int | float | None)},
            "options": self._watched.options() if "*" in wanted else [],
            "doubts": self._doubts,
        }

    def _once(self) -> tuple[dict[str, Any] | None, object]:
        """One complaint, whose words are gone then; or the values."""
        argv = [word for group in self._groups for word in group]
        self._watched.parsers.clear()
        self._logged.text, self._watched.left = "", ()
        try:
            return None, _call(self._parse, self._module, argv)
        except ParsedError as parsed:
            return None, parsed.values
        except UnknownError as error:
            return self._unknown(error.words), None
        except RefusedError as error:
            return self._refused(error), None
        except OWN_WORDS as error:
            if not _from_dynamo(error):
                raise
            return self._whole(str(error)), None
        except SystemExit as end:
            if self._module == "dynamo.frontend" and self._watched.left:
                return self._unknown(self._watched.left), None
            return self._whole(self._logged.text or f"it ends with {end.code}"), None

    def _unknown(self, words: Sequence[str]) -> dict[str, Any]:
        known = self._watched.actions()
        for index, (flag, *_) in enumerate(self._groups):
            if flag in words and flag not in known:
                del self._groups[index]
                return {"kind": "unknown", "flag": flag, "text": "", "near": _near(flag, known)}
        surplus = [i for i, group in enumerate(self._groups) if set(group[1:]) & set(words)]
        # A switch takes none; of others, the last that had the word.
        switches = [i for i in surplus if getattr(known.get(self._groups[i][0]), "nargs", None) == 0]
        if not surplus:
            return self._whole(f"unrecognized arguments: {' '.join(words)}")
        index = (switches or surplus)[-1]
        flag, *values = self._groups[index]
        self._groups[index] = [flag, *(value for value in values if value not in words)]
        text = " ".join(value for value in values if value in words)
        return {"kind": "surplus", "flag": flag, "text": text, "near": []}

    def _refused(self, error: RefusedError) -> dict[str, Any]:
        ambiguous = _AMBIGUOUS.search(str(error))
        for index, (flag, *values) in reversed(list(enumerate(self._groups))):
            if ambiguous is not None and flag == ambiguous[1]:
                del self._groups[index]
                near = [o for o in self._watched.actions() if o.startswith(flag)]
                return {"kind": "ambiguous", "flag": flag, "text": "", "near": sorted(near)}
            if any(name.startswith(flag) for name in error.names):
                del self._groups[index]
                return self._value(flag, values, error)
        return self._whole(str(error))

    def _value(self, flag: str, values: Sequence[str], error: RefusedError) -> dict[str, Any]:
        action = next((a for o, a in self._watched.actions().items() if o in error.names), None)
        choices = [str(choice) for choice in (action.choices if action is not None else None) or ()]
        wrong = next((value for value in values if value not in choices), "")
        kind = "choice" if choices and "invalid choice" in str(error) else "value"
        near = difflib.get_close_matches(wrong, choices, n=1) if kind == "choice" else []
        return {
            "kind": kind, "flag": flag, "value": wrong if kind == "choice" else " ".join(values),
            "text": str(error), "near": near, "choices": sorted(choices),
        }  # fmt: skip

    def _whole(self, text: str) -> dict[str, Any]:
        """Of no option, or of one that `text` names."""
        named = [i for i, (f, *_) in enumerate(self._groups) if re.search(rf"{re.escape(f)}(?![\w-])", text)]
        flag = self._groups.pop(named[-1])[0] if named else ""
        return {"kind": "whole", "flag": flag, "text": text, "near": []}


class _Logged(logging.Handler):
    """Keeps the last error: Dynamo writes why, and exits."""

    text = ""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.text = record.getMessage()


def _stop_behind_the_parser(place: Any) -> None:
    """`dynamo.sglang` goes on, in the same function, to the model and to the GPU."""

    async def nothing(*args: object, **options: object) -> str:
        return str(args[0])

    def parsed(values: object) -> None:
        raise ParsedError(values)

    place.ServerArgs.from_cli_args = staticmethod(parsed)
    for name in FETCHES:
        if hasattr(place, name):
            setattr(place, name, nothing)


def _call(parse: Any, module: str, argv: list[str]) -> object:
    """`parse` with `argv`, where and as the release takes it."""
    sys.argv = [module, *argv]
    result = parse(argv) if inspect.signature(parse).parameters else parse()
    if inspect.iscoroutine(result):
        try:
            result.send(None)
        except StopIteration as end:
            return end.value
        raise RuntimeError("parse_args waits for something")
    return result[0] if isinstance(result, tuple) else result


def _from_dynamo(error: BaseException) -> bool:
    """Whether Dynamo's own code raised it: what stumbles inside hollow modules says nothing."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and "/dynamo/" in trace.tb_frame.f_code.co_filename


def _near(flag: str, known: dict[str, Any]) -> list[str]:
    return difflib.get_close_matches(flag, known, n=1, cutoff=0.75)


def _full(flag: str, known: dict[str, Any]) -> str:
    """The option that argparse takes `flag` for; empty: none."""
    longer = sorted((o for o in known if o.startswith(flag) and flag.startswith("--")), key=len)
    return longer[0] if longer else ""


def main() -> None:
    """Answer on standard output, whatever else is written there on the way."""
    out = os.dup(1)
    os.dup2(2, 1)
    request = json.load(sys.stdin)
    finder = Finder()
    sys.meta_path.insert(0, finder)
    try:
        question = Question(request["module"], request["groups"], finder.doubts)
        answer = question.answer(request["wanted"])
    except Exception as error:
        answer = {"doubts": [*finder.doubts, repr(error)]}
    os.write(out, json.dumps(answer).encode())
    # Dynamo's compiled half may have threads.
    os._exit(0)
