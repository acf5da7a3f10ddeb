"""Replacing a file at once: a reader sees the old one or the new one, never a part."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path, *, mode: int = 0o644, prefix: str | None = None) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` once the block has ended without an exception.

    `prefix`: of its name until then, beside `path`. OSError when it cannot be made, with `path` as it was.
    """
    # Not named after the process: containers that share the directory may all be PID 1.
    fd, name = tempfile.mkstemp(prefix=f".{path.name}." if prefix is None else prefix, dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(file.fileno(), mode)
            yield file
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def replace_file(path: Path, data: bytes) -> None:
    """Make `data` the content of `path`, readable for everybody. Errors: `replacing`'s."""
    with replacing(path) as file:
        file.write(data)
