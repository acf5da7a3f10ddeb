"""The files that settings come from, read with every surprise turned into one sentence."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

MAX_BYTES = 64 * 1024
"""Largest file that is read: a value or a .env is far below it, a wrong path often is not."""


class Unreadable(Exception):
    """Why a file cannot be used and what to do: ``<why>: <what to do>``."""


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """The text of the regular file `path`, at most `MAX_BYTES` of it; `Unreadable` when it cannot be had.

    Devices and pipes are refused: opening a pipe that nobody writes to would hang the start.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Unreadable("there is no such file: correct the path or mount the file") from None
    except PermissionError:
        raise Unreadable(f"user {os.geteuid()} may not read it: change its owner or mode") from None
    except OSError as error:
        raise Unreadable(f"{(error.strerror or 'it cannot be opened').lower()}: correct the path") from None
    except ValueError:
        raise Unreadable("it is not a path: correct it") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Unreadable("it is not a regular file: name a file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Unreadable(f"reading it failed ({error.strerror}): make it readable") from None
    finally:
        os.close(descriptor)
    if len(data) > MAX_BYTES:
        raise Unreadable("it is larger than 64 KiB: name the right file")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        raise Unreadable("it is not UTF-8 text: write it as UTF-8") from None
    if "\0" in text:
        raise Unreadable("it holds a NUL character: write it as plain text")
    return text


def is_file(path: Path) -> bool:
    """Whether `path` is a regular file that can be seen; never an error (Path.is_file() raises some)."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def parse_env_file(text: str) -> tuple[dict[str, str], tuple[int, ...]]:
    """The variables of a .env and the numbers of the lines that are not ``NAME=value``.

    ``$`` is an ordinary character: a password must not change because a variable of that name exists.
    Of a name given twice the last one counts; a name without ``=`` is ignored.
    """
    from dotenv.parser import parse_stream

    # python-dotenv's dotenv_values() skips a bad line with a log message; its parser says which it was.
    values: dict[str, str] = {}
    bad: list[int] = []
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            bad.append(binding.original.line)
        elif binding.key is not None and binding.value is not None:
            values[binding.key] = binding.value
    return values, tuple(bad)
