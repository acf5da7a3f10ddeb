"""What can be wrong with a model's files before anybody parses them. Reads names, kinds and first bytes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

LFS = b"version https://git-lfs.github.com/spec/"
LFS_TEXT = "is a git-lfs pointer, not the file itself"
LFS_REMEDY = "run `git lfs pull` where it was cloned"
POINTER_SIZE = 1024
"""Bytes that no git-lfs pointer reaches."""
READ_BY_OTHERS = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".safetensors", ".py")
"""Endings of what the engine and the frontend read of a model."""
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
NEEDED = (TOKENIZER_CONFIG,)
"""Without it Dynamo's frontend (0.8.1) lists no model, and does not say so."""


def problems(directory: Path, *, weights: bool) -> Iterator[tuple[str, str]]:
    """(what is wrong as a phrase that begins with a file's name, remedy). Raises OSError.

    `weights`: the weight files are looked at elsewhere.
    """
    with os.scandir(directory) as entries:
        names = sorted(entry.name for entry in entries if entry.name.endswith(READ_BY_OTHERS))
    for name in names:
        if weights and name.endswith(".safetensors"):
            continue
        try:
            mode = (directory / name).stat()
        except OSError:
            if name in (TOKENIZER, TOKENIZER_CONFIG, TEMPLATE):
                yield f"{name} is a link to nothing", "mount what it points to as well"
            continue
        if not stat.S_ISREG(mode.st_mode):
            yield f"{name} is not a regular file", "fetch that file again"
        elif mode.st_size < POINTER_SIZE and is_pointer(directory / name):
            yield f"{name} {LFS_TEXT}", LFS_REMEDY
    for name in NEEDED:
        if not os.path.lexists(directory / name):
            yield f"{name} is missing: Dynamo's frontend lists no model without it", "fetch that file again"


def leads_nowhere(path: Path) -> bool:
    """Whether `path` is missing, or a link to nothing."""
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False  # there is something, and whoever reads it says what is wrong
    return False


def is_pointer(path: Path) -> bool:
    """Whether git-lfs would put another file in the place of the regular file at `path`."""
    try:
        with path.open("rb", buffering=0) as file:
            return file.read(len(LFS)) == LFS
    except OSError:
        return False  # whoever reads it says why it cannot be read


def other_place(path: str) -> str | None:
    """Where a model may be instead of `path`, which has no config.json: a snapshot of a hub's cache below it,
    or its one directory that has a config.json. None: nowhere near."""
    directory = Path(path)
    try:
        main = directory / "refs" / "main"
        below = [directory / "snapshots" / main.read_text()[:100].strip()] if main.is_file() else []
        for pattern in ("snapshots/*", "*/snapshots/*", "*"):
            below += sorted(directory.glob(pattern))[:100]
        return next((str(place) for place in below if (place / "config.json").is_file()), None)
    except (OSError, ValueError):
        return None
