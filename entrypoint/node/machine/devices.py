"""Adapters for RDMA, the IMEX channel, limits, shared memory, the cache's directory. Nothing here raises."""

from __future__ import annotations

import os
import resource
import tempfile
from pathlib import Path

from entrypoint.node.machine.facts import Adapters, Cache, Hca, Limits
from entrypoint.node.machine.gpus import numa_of

INFINIBAND = Path("/sys/class/infiniband")
VERBS = Path("/dev/infiniband")
IMEX = Path("/dev/nvidia-caps-imex-channels")


def adapters(place: Path = INFINIBAND, verbs: Path = VERBS) -> Adapters:
    """Every adapter that the kernel knows, and whether a container can use them."""
    try:
        found = tuple(_hca(device) for device in sorted(place.iterdir()))
    except OSError:
        found = ()
    return Adapters(found, _closed(verbs) if found else None)


def _hca(device: Path) -> Hca:
    ports = [*sorted((device / "ports").glob("*"))]
    states = [_text(port / "state").partition(": ")[2] or "unknown" for port in ports]
    return Hca(
        device.name,
        numa_of(device / "device"),
        active="ACTIVE" in states,
        state=states[0] if states else "without ports",
        rate=_text(ports[0] / "rate") if ports else "",
    )


def _closed(verbs: Path) -> str | None:
    files = sorted(verbs.glob("uverbs*"))
    if not files:
        return f"{verbs} has no uverbs files"
    return _unopened(files[0])


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _unopened(path: Path) -> str | None:
    try:
        os.close(os.open(path, os.O_RDWR))
    except OSError as error:
        return f"{path}: {error.strerror}"
    return None


def imex(place: Path = IMEX) -> str:
    """Why no IMEX channel can be opened; empty: one can."""
    channels = sorted(place.glob("channel*"))
    if not channels:
        return f"no {place}" if not place.exists() else f"{place} is empty"
    return _unopened(channels[0]) or ""


def limits(shm: Path = Path("/dev/shm")) -> Limits:
    """Limits of this process, which its children inherit, and the size of shared memory."""
    size, error = None, None
    try:
        state = os.statvfs(shm)
        size = state.f_frsize * state.f_blocks
    except OSError as reason:
        error = reason.strerror
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Limits(
        _limit(resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]), _limit(soft), _limit(hard), size, error
    )


def _limit(value: int) -> int | None:
    return None if value == resource.RLIM_INFINITY else value


def cache(path: str) -> Cache:
    """Whether a file can be made in the directory `path`, which is made if it is not there."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path, prefix=".check-") as file:
            file.write(b"x")
            file.flush()
        state = os.statvfs(path)
    except OSError as error:
        return Cache(path, error.strerror or str(error))
    return Cache(path, None, state.f_frsize * state.f_bavail)
