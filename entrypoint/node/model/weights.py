"""Are a model's weight files all there and whole? Reads names, sizes and headers, never the weights.

The safetensors layout: 8 bytes little-endian length of the header, the header (JSON, one entry per tensor
with `data_offsets`), then exactly as many bytes as the largest end offset says.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from entrypoint.node.model.files import LFS, LFS_TEXT

INDEX = "model.safetensors.index.json"
MAX_HEADER = 100_000_000
"""Bytes; the format's own limit."""

MAX_TEXT = 256_000_000
"""Bytes of a JSON file; GLM-4.7's index, the largest, has 15 MB."""

_OFFSETS = re.compile(rb'"data_offsets"\s*:\s*\[\s*\d+\s*,\s*(\d+)\s*\]')
_SHARD = re.compile(rb':\s*"([^"\\]+\.safetensors)"')
_MAP = re.compile(rb'"weight_map"\s*:\s*\{')
_END = re.compile(rb"\}\s*\}\s*\Z")


def problems(directory: Path) -> list[str]:
    """What is wrong with the weight files of `directory`, one phrase each without the directory's name.

    Every shard named in the index must exist and be as long as its own header says; without an index,
    every *.safetensors file must. Raises OSError when the directory cannot be listed.
    """
    index = directory / INDEX
    if not os.path.lexists(index):
        return _check(
            directory, sorted(e.name for e in os.scandir(directory) if e.name.endswith(".safetensors"))
        )
    try:
        names = shard_names(index)
    except RecursionError:
        return [f"{INDEX}: is nested too deeply"]
    except (OSError, ValueError) as error:
        return [f"{INDEX}: {reason(error)}"]
    return _check(directory, sorted(names))


def has_weights(directory: Path) -> bool:
    """Whether `directory` holds an index or any *.safetensors file."""
    return any(e.name == INDEX or e.name.endswith(".safetensors") for e in os.scandir(directory))


def shard_names(index: Path) -> set[str]:
    """The files that the index at `index` names.

    GLM-4.7's index has 170,000 entries: parsing it costs 40 MB that the process never gives back, so a
    scan serves wherever it leaves no doubt. Raises OSError, or ValueError with what is wrong.
    """
    data = read_regular(index)
    text = data.decode("utf-8")
    if len(data) > 1_000_000 and _MAP.search(data) and _END.search(data[-256:]):
        del text
        found = {match[1] for match in _SHARD.finditer(data)}
        if found:
            return {name.decode("utf-8") for name in found}
        text = data.decode("utf-8")
    content = json.loads(text)
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(v, str) and v for v in names.values()):
        raise ValueError("has no weight_map that names files")
    return set(names.values())


def read_regular(path: Path) -> bytes:
    """The bytes of the regular file at `path`. A FIFO or device is refused: it could block for ever."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("is not a regular file")
    if status.st_size > MAX_TEXT:
        raise ValueError(f"is too large: {status.st_size} bytes")
    return path.read_bytes()


def _check(directory: Path, names: list[str]) -> list[str]:
    if len(names) <= 4:
        results: Iterable[str | None] = map(_shard_problem, (directory / name for name in names))
    else:
        # Network file systems answer slowly but in parallel.
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(_shard_problem, (directory / name for name in names)))
    return [f"{name}: {problem}" for name, problem in zip(names, results, strict=True) if problem]


def _shard_problem(path: Path) -> str | None:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return "is not a regular file"
        with path.open("rb", buffering=0) as file:
            return _size_problem(
                status.st_size, file.read(8), lambda count: _read_exactly(file.fileno(), count)
            )
    except OSError as error:
        return reason(error)


def _size_problem(size: int, head: bytes, read: Callable[[int], bytes]) -> str | None:
    if size == 0:
        return "is empty"
    if head == LFS[:8]:
        return LFS_TEXT
    if len(head) < 8:
        return f"is truncated: {size} bytes, less than a header's length field"
    length = int.from_bytes(head, "little")
    if not 2 <= length <= MAX_HEADER:
        return f"is not a safetensors file: header length {length}"
    if 8 + length > size:
        return f"is truncated: {size} bytes, its header alone takes {8 + length}"
    header = read(length)
    if not header.startswith(b"{") or not header.rstrip().endswith(b"}"):
        return "is not a safetensors file: its header is not a JSON object"
    data = max((int(match[1]) for match in _OFFSETS.finditer(header)), default=0)
    wanted = 8 + length + data
    if size < wanted:
        return f"is truncated: {size} bytes of {wanted}"
    return f"is too long: {size} bytes, its header says {wanted}" if size > wanted else None


def _read_exactly(descriptor: int, count: int) -> bytes:
    parts = []
    while count > 0 and (part := os.read(descriptor, count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def reason(error: Exception) -> str:
    """Why a file is of no use, as a phrase that follows its name."""
    if isinstance(error, FileNotFoundError):
        return "is missing"
    if isinstance(error, PermissionError):
        return f"cannot be read by uid {os.geteuid()}"
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror})"
    if isinstance(error, UnicodeDecodeError):
        return "is not UTF-8 text"
    if isinstance(error, json.JSONDecodeError):
        return f"is not valid JSON (line {error.lineno}: {error.msg})"
    if "integer string conversion" in str(error):
        return "has a number of thousands of digits"
    return str(error)
