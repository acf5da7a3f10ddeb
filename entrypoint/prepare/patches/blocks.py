"""Reversible edits of Python source: text in, text out, nothing else.

An edit replaces whole lines by a block between two marker lines. The lines it takes out stay in the block as
comments, so that `strip` gives the text back as it was, byte for byte, without a second file:

    # >>> glm47-runner NAME MODE sha256=…
    #-        the line that was here
            the line that is here now
    # <<< glm47-runner NAME

The digest is that of the whole text before the edit. Line endings are those of the text.
"""

from __future__ import annotations

import ast
import hashlib
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass

TAKEN = "#- "
_BEGIN = re.compile(
    r"^[ \t]*# >>> glm47-runner (?P<name>[a-z0-9_]+) (?P<mode>[a-z]+) sha256=(?P<sha>[0-9a-f]{64})\r?\n?$"
)
_END = re.compile(r"^[ \t]*# <<< glm47-runner (?P<name>[a-z0-9_]+)\r?\n?$")


class UnknownSourceError(ValueError):
    """The text is not what an edit knows how to change. The message says what was looked for."""


@dataclass(frozen=True)
class Replacement:
    """Lines `first` to `last`, from 1, make way for `new`; `last` = `first` - 1 inserts before `first`."""

    first: int
    last: int
    new: tuple[str, ...] = ()
    """Lines without indentation of their own beyond `indent` and without line ends."""
    indent: str = ""


@dataclass(frozen=True)
class Stripped:
    """A text without the blocks of one edit."""

    text: str
    mode: str | None
    """The mode that the blocks name; None: there were none."""
    sha256: str | None
    """The digest that they record."""


def digest(text: str) -> str:
    """SHA-256 of `text` as UTF-8, in hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def lines_of(text: str) -> list[str]:
    """Lines with their ends, split as Python's own parser splits them (not at form feeds)."""
    return list(io.StringIO(text, newline=""))


def method(text: str, class_name: str, name: str) -> ast.FunctionDef:
    """The syntax tree of one method, with the line numbers of `text`. UnknownSourceError unless there is one.

    Only the method's own lines are parsed: the files are thousands of lines long, and a start waits for this.
    """
    lines = lines_of(text)
    heads = [i for i, line in enumerate(lines) if re.match(rf"class {class_name}\b", line)]
    if len(heads) != 1:
        raise UnknownSourceError(f"expected one class {class_name}, found {len(heads)}")
    end = _end(lines, heads[0] + 1, re.compile(r"[^\s#)\]}]"))
    starts = [i for i in range(heads[0], end) if re.match(rf"    def {name}\b", lines[i])]
    if len(starts) != 1:
        raise UnknownSourceError(f"expected one {class_name}.{name}, found {len(starts)}")
    end = min(end, _end(lines, starts[0] + 1, re.compile(r" {0,4}[^\s#)\]}]")))
    try:
        tree = ast.parse("class _:\n" + "".join(lines[starts[0] : end]))
    except (SyntaxError, ValueError) as error:
        raise UnknownSourceError(f"{class_name}.{name} is not valid Python ({error})") from None
    found = tree.body[0].body[0]  # type: ignore[attr-defined]
    if not isinstance(found, ast.FunctionDef):
        raise UnknownSourceError(f"{class_name}.{name} is not a plain method")
    ast.increment_lineno(found, starts[0] - 1)
    return found


def class_line(text: str, class_name: str) -> int:
    """The line of the head of a top-level class, from 1. UnknownSourceError unless there is just one."""
    lines = lines_of(text)
    heads = [i for i, line in enumerate(lines) if re.match(rf"class {class_name}\b", line)]
    if len(heads) != 1 or (heads[0] and lines[heads[0] - 1].startswith("@")):
        raise UnknownSourceError(f"expected one undecorated class {class_name}, found {len(heads)}")
    return heads[0] + 1


def _end(lines: list[str], start: int, stop: re.Pattern[str]) -> int:
    return next((i for i in range(start, len(lines)) if stop.match(lines[i])), len(lines))


def replace(
    text: str, name: str, mode: str, replacements: Iterable[Replacement], sha256: str | None = None
) -> str:
    """`text` with each replacement as a marked block; `sha256` overrides the digest that they record."""
    lines = lines_of(text)
    end = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    sha = sha256 or digest(text)
    for r in sorted(replacements, key=lambda r: r.first, reverse=True):
        taken = [f"{r.indent}{TAKEN}{line}" for line in lines[r.first - 1 : r.last]]
        if taken and not taken[-1].endswith(("\n", "\r")):
            raise UnknownSourceError("its last line has no end")
        block = [
            f"{r.indent}# >>> glm47-runner {name} {mode} sha256={sha}{end}",
            *taken,
            *(f"{r.indent}{line}{end}" if line else end for line in r.new),
            f"{r.indent}# <<< glm47-runner {name}{end}",
        ]
        lines[r.first - 1 : r.last] = block
    return "".join(lines)


def strip(text: str, name: str) -> Stripped:
    """`text` without the blocks of edit `name`. UnknownSourceError when a block is broken."""
    if "glm47-runner" not in text:
        return Stripped(text, None, None)
    out: list[str] = []
    found: set[tuple[str, str]] = set()
    inside = False
    for line in lines_of(text):
        begin, end = _BEGIN.match(line), _END.match(line)
        if begin and begin["name"] == name:
            if inside:
                raise UnknownSourceError(f"a block of the {name} edit is broken")
            inside = True
            found.add((begin["mode"], begin["sha"]))
        elif end and end["name"] == name:
            if not inside:
                raise UnknownSourceError(f"a block of the {name} edit is broken")
            inside = False
        elif not inside:
            out.append(line)
        elif line.lstrip(" \t").startswith(TAKEN):
            out.append(line.lstrip(" \t")[len(TAKEN) :])
    if inside or len(found) > 1:
        raise UnknownSourceError(f"a block of the {name} edit is broken")
    mode, sha = next(iter(found), (None, None))
    return Stripped("".join(out), mode, sha)
