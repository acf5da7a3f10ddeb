"""What PyTorch's flight recorder says of each rank of an engine: the last collective of each of its groups.

A rank with NCCL has a named pipe (`TORCH_NCCL_DEBUG_INFO_PIPE_FILE` and its number). A byte written to it
makes a thread of that process leave a file: a rank that is stuck in a collective answers too, one that is
stopped by a signal does not. Only collectives of PyTorch's own groups are recorded.
"""

from __future__ import annotations

import io
import os
import pickle
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

PIPES = "TORCH_NCCL_DEBUG_INFO_PIPE_FILE"
"""The variable whose value, a rank's number and `.pipe` name its pipe."""
FILES = ("TORCH_FR_DUMP_TEMP_FILE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE")
"""The variables whose value and a rank's number name its file; the first is the name since torch 2.9."""
WAIT = 3.0
"""Seconds that the files are waited for: the thread looks at its pipe a few times a second."""
SIZE = 64 << 20
"""Bytes of a file that is read."""
OVER = "completed"


@dataclass(frozen=True)
class Collective:
    """The last collective of one group, as one rank sees it."""

    rank: int
    group: str
    """What the engine calls the group: `tp:0`; else PyTorch's number of it."""
    name: str
    """`all_reduce`."""
    number: int
    """How many of the group's it is: ranks that wait for each other have the same."""
    state: str
    """scheduled, started or completed."""

    @property
    def waits(self) -> bool:
        """It has begun and is not over."""
        return self.state != OVER

    def __str__(self) -> str:
        return f"{self.name} {self.number} of group {self.group}, {self.state}"


def ask(variables: Mapping[str, str], seconds: float = WAIT) -> tuple[list[Collective], list[str]]:
    """What the ranks say within `seconds`, and a line for each that has a pipe and does not.

    `variables`: the engine's own.
    """
    stem = variables.get(PIPES)
    files = next((variables[name] for name in FILES if name in variables), None)
    if not stem or not files:
        return [], []
    began = time.time()
    asked: dict[int, Path] = {}
    why: list[str] = []
    for pipe in sorted(Path(stem).parent.glob(f"{Path(stem).name}*.pipe")):
        number = pipe.name.removeprefix(Path(stem).name).removesuffix(".pipe")
        if not number.isdigit():
            continue
        try:
            descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:  # nobody reads there: the rank has ended
            why.append(f"rank {number} cannot be asked for its collectives: {error.strerror}")
            continue
        os.write(descriptor, b"1")
        os.close(descriptor)
        asked[int(number)] = Path(f"{files}{number}")
    found: list[Collective] = []
    end = time.monotonic() + seconds
    while asked and time.monotonic() < end:
        for rank, file in [*asked.items()]:
            if (last := _read(rank, file, began)) is not None:
                found += last
                del asked[rank]
        time.sleep(0.05)
    why += [f"rank {rank} does not tell its collectives" for rank in asked]
    return found, why


def _read(rank: int, file: Path, since: float) -> list[Collective] | None:
    """What a file of after `since` (seconds since 1970) says; None: it is not there, or not whole yet."""
    try:
        if file.stat().st_mtime < since - 1 or file.stat().st_size > SIZE:
            return None
        dump = _Plain(io.BytesIO(file.read_bytes())).load()
    except (OSError, EOFError, ValueError, IndexError, KeyError, TypeError, pickle.UnpicklingError):
        return None
    return [*last_of_each_group(rank, dump)]


class _Plain(pickle.Unpickler):
    """Takes numbers, texts and containers only: a file of another process must not run anything here."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"{module}.{name} is none of these")

    def persistent_load(self, pid: object) -> NoReturn:
        raise pickle.UnpicklingError("it refers to something outside")


def last_of_each_group(rank: int, dump: Any) -> Iterator[Collective]:
    """The last collective of each group in a dump (torch's FlightRecorder, version 2)."""
    last: dict[str, Collective] = {}
    entries = dump.get("entries") if isinstance(dump, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        try:
            name = str(entry["profiling_name"]).rpartition(":")[2]
            number, state = int(entry["collective_seq_id"]), str(entry["state"])
            process_group = entry["process_group"]
        except (KeyError, TypeError, ValueError):
            continue
        if entry.get("is_p2p"):
            continue  # of two ranks only, and numbered otherwise
        known = [str(part) for part in process_group] if isinstance(process_group, (tuple, list)) else []
        group = next((part for part in reversed(known) if part and part != "undefined"), "?")
        if group not in last or number >= last[group].number:
            last[group] = Collective(rank, group, name, number, state)
    yield from last.values()
