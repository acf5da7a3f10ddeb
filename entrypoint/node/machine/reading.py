"""How fast this machine reads a model's weights: a sample of one file, for two seconds at most."""

from __future__ import annotations

import itertools
import mmap
import os
import random
import threading
import time
from pathlib import Path

from entrypoint.node.machine.facts import Read
from entrypoint.node.model.weights import INDEX, reason, shard_names

SECONDS = 2.0
"""Seconds that a sample takes at most."""
PATIENCE = 0.5
"""Seconds beyond that for a block that is on its way."""
BLOCK = 8 << 20
READERS = 4
"""Blocks under way at a time: one alone measures the way there and back, not the storage."""
SAMPLE = 64 << 20
"""Bytes that a file must have to be worth a sample, where there is a larger one."""


def sample(directory: Path, seconds: float = SECONDS) -> Read | None:
    """Read one shard of the model in `directory`, chosen by chance; None: it has no weights.

    For `seconds` at most, past the page cache where the file system can do that.
    """
    try:
        sizes = {name: (directory / name).stat().st_size for name in _names(directory)}
    except (OSError, ValueError, RecursionError):
        return None  # the model's own check says what is wrong
    if not sizes:
        return None
    shard = random.choice(
        [n for n, size in sizes.items() if size >= SAMPLE] or [max(sizes, key=sizes.__getitem__)]
    )
    sampler = _Sampler(directory / shard, sizes[shard])
    began = time.monotonic()
    sampler.run(began + seconds)
    took = min(max(sampler.last, began), began + seconds + PATIENCE) - began
    return Read(
        shard, sizes[shard], sum(sizes.values()), sampler.bytes, took or time.monotonic() - began,
        sampler.direct, sampler.error,
    )  # fmt: skip


def _names(directory: Path) -> set[str]:
    if (directory / INDEX).exists():
        return shard_names(directory / INDEX)
    return {path.name for path in directory.glob("*.safetensors")}


class _Sampler:
    """Readers of one file, which share its blocks among them."""

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size = path, size
        self._blocks = itertools.count()
        self._lock = threading.Lock()
        self.bytes = 0
        self.last = 0.0
        self.direct = True
        self.error: str | None = None

    def run(self, deadline: float) -> None:
        """Read until `deadline` (monotonic seconds) or the file's end, and no longer than PATIENCE more."""
        readers = [threading.Thread(target=self._read, args=(deadline,), daemon=True) for _ in range(READERS)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(max(0.0, deadline + PATIENCE - time.monotonic()))

    def _read(self, deadline: float) -> None:
        buffer = mmap.mmap(-1, BLOCK)  # aligned to a page, as O_DIRECT demands
        try:
            descriptor = self._open()
            try:
                while time.monotonic() < deadline and (offset := next(self._blocks) * BLOCK) < self._size:
                    self._count(os.preadv(descriptor, [buffer], offset))
            finally:
                os.close(descriptor)
        except OSError as error:
            self.error = reason(error)

    def _count(self, read: int) -> None:
        with self._lock:
            self.bytes += read
            self.last = time.monotonic()

    def _open(self) -> int:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECT)
        except OSError:
            self.direct = False
            return os.open(self._path, os.O_RDONLY)
        probe = mmap.mmap(-1, mmap.PAGESIZE)
        try:
            os.preadv(descriptor, [probe], 0)
        except OSError:  # some file systems take the flag and refuse the read
            os.close(descriptor)
            self.direct = False
            return os.open(self._path, os.O_RDONLY)
        return descriptor
