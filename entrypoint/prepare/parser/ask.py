"""Asks the installed release's own parsers about a plan's command lines, in the engine's interpreter, aside.

A question takes a third of a second of a processor, and nothing else is done with its answer than to refuse
what the engine would refuse: no answer in time, or a parser that cannot be loaded, refuses nothing.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import entrypoint
from entrypoint.base.foreign import from_json
from entrypoint.plan.arguments import is_flag
from entrypoint.plan.types import Plan

MODULES = ("dynamo.sglang", "dynamo.frontend", "dynamo.mocker")
"""Whose parsers can be asked: what a plan runs as ``python -m``."""
START_WAIT = 5.0
"""Seconds that a start waits for answers at most, once it has nothing else to do. Measured: 0.2 to 0.5, and
more where the engine's files are not in memory yet; the engine then finds them there."""
CHECK_WAIT = 2.5
"""Seconds that `check` waits: less than it has for all its looks."""
_OURS = str(Path(entrypoint.__file__).parents[1])
_PROGRAM = f"""
import sys
sys.path[:1] = []
sys.path.append({_OURS!r})
from entrypoint.prepare.parser import asked
sys.path.remove({_OURS!r})
asked.main()
"""


@dataclass(frozen=True)
class Complaint:
    """What a release's parser has against one option."""

    process: str
    kind: str
    """`unknown`, `choice`, `value` (it cannot be read), `surplus` (a value for a switch), `ambiguous`, or
    `whole`: in Dynamo's own words, which `text` has."""
    flag: str
    """Empty: of no single option."""
    value: str = ""
    text: str = ""
    near: tuple[str, ...] = ()
    """What may have been meant."""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """Of one process's parser."""

    process: str
    complaints: tuple[Complaint, ...] = ()
    abbreviations: Mapping[str, str] | None = None
    """By option as it was given, the one that it stands for."""
    values: Mapping[str, str | int | float | None] | None = None
    options: tuple[Mapping[str, Sequence[str]], ...] = ()
    """Of each parser that read the command line, in order, its options and what they choose from."""
    silent: str | None = None
    """Why there is no answer."""


def groups(argv: Iterable[str]) -> list[list[str]]:
    """A command line's options with their values."""
    found: list[list[str]] = []
    for word in argv:
        if is_flag(word) or not found:
            found.append([word])
        else:
            found[-1].append(word)
    return found


class Question:
    """A command line that a parser is reading now."""

    def __init__(
        self, name: str, argv: Sequence[str], environ: Mapping[str, str], wanted: Iterable[str] = ()
    ) -> None:
        """`argv` is a whole one, of ``python -m MODULE``. `wanted`: names of values, or `*` for the options.

        Raises OSError when the interpreter cannot be started.
        """
        question = {"module": argv[2], "groups": groups(argv[3:]), "wanted": list(wanted)}
        self._name = name
        self._asked = subprocess.Popen(
            [argv[0], "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(environ),
        )
        assert self._asked.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._asked.stdin as file:
            file.write(json.dumps(question).encode())
        self._asked.stdin = None  # `communicate` would use it again

    def answer(self, longest: float) -> Answer:
        """What is said within `longest` seconds from now; whoever has said nothing then is ended."""
        try:
            said, _ = self._asked.communicate(timeout=max(0.0, longest))
        except subprocess.TimeoutExpired:
            self.end()
            return Answer(self._name, silent="it did not answer in time")
        try:
            return _answer(self._name, from_json(said))
        except ValueError:
            return Answer(self._name, silent=f"its interpreter ended with {self._asked.returncode}")

    def end(self) -> None:
        """Nobody wants the answer any more."""
        self._asked.kill()
        self._asked.communicate()


class Questions:
    """All of a plan's command lines, read side by side. Leave the block, and nobody reads any more."""

    def __init__(self, plan: Plan, environ: Mapping[str, str]) -> None:
        self._asked: list[Question] = []
        for process in plan.processes:
            if process.argv[1:2] != ("-m",) or process.argv[2] not in MODULES:
                continue
            seen = {k: v for k, v in {**environ, **process.env}.items() if k not in process.unset_env}
            # Where there is no interpreter, the plan says so, or the start will.
            with contextlib.suppress(OSError):
                self._asked.append(Question(process.name, process.argv, seen))

    def __enter__(self) -> Questions:
        return self

    def __exit__(self, *reason: object) -> None:
        while self._asked:
            self._asked.pop().end()

    def answers(self, longest: float) -> list[Answer]:
        """What is said within `longest` seconds from now."""
        until = time.monotonic() + longest
        asked, self._asked = self._asked, []
        return [question.answer(until - time.monotonic()) for question in asked]


def _answer(process: str, said: dict[str, Any]) -> Answer:
    if said["doubts"]:
        return Answer(process, silent=said["doubts"][-1])
    complaints = tuple(
        Complaint(
            process, one["kind"], one["flag"], one.get("value", ""), one["text"],
            tuple(one["near"]), tuple(one.get("choices", ())),
        )
        for one in said["complaints"]
    )  # fmt: skip
    return Answer(process, complaints, said["abbreviations"], said["values"], tuple(said["options"]))
