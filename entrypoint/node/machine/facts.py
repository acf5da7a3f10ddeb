"""What was seen of a machine, as frozen data. None means: it could not be seen. Sizes are bytes."""

from __future__ import annotations

from dataclasses import dataclass

Version = tuple[int, int]
"""Of CUDA: (12, 9)."""


@dataclass(frozen=True)
class Holder:
    """A process that has memory of a GPU."""

    pid: int
    """As the driver counts it: a container may count otherwise."""
    name: str | None
    """Where its /proc entry is to be seen and has the GPU open."""
    used: int | None


@dataclass(frozen=True)
class Fabric:
    """A GPU's place in an NVLink fabric, by NVML."""

    state: str
    """`not supported`, `not started`, `in progress` or `completed`."""
    error: str | None
    """Why the GPU could not be registered with it, once that is completed."""
    cluster: str
    """The fabric's identifier, in hexadecimal."""
    clique: int
    """GPUs of one cluster and one clique can reach each other's memory: an NVLink domain."""
    ill: tuple[str, ...] = ()
    """What its health mask complains of."""


@dataclass(frozen=True)
class Gpu:
    """One GPU."""

    index: int
    name: str = ""
    pci: str = ""
    numa: int | None = None
    total: int | None = None
    used: int | None = None
    """What others have of it; what the driver keeps for itself is not counted."""
    holders: tuple[Holder, ...] = ()
    ecc_uncorrected: int | None = None
    """Since the driver was loaded."""
    remap_pending: bool | None = None
    """A row of its memory is replaced at the next reset."""
    remap_failed: bool | None = None
    mig: bool | None = None
    fabric: Fabric | None = None
    lost: str | None = None
    """Why the driver cannot reach it."""


@dataclass(frozen=True)
class Xid:
    """An error that the driver wrote into the kernel's log."""

    pci: str
    number: int
    age: float
    """Seconds since it was written."""


@dataclass(frozen=True)
class Gpus:
    """All GPUs, the driver, and the CUDA of the image."""

    files: int
    """/dev/nvidia0 and so on."""
    seen: tuple[Gpu, ...] | None = None
    unseen: str | None = None
    """Why NVML does not say."""
    driver: str | None = None
    driver_cuda: Version | None = None
    """The newest CUDA that the driver knows."""
    image_cuda: Version | None = None
    """What the engine's torch was built with."""
    compat: bool = False
    """The image has CUDA's forward compatibility libraries."""
    xids: tuple[Xid, ...] | None = None


@dataclass(frozen=True)
class Hca:
    """A network adapter for RDMA."""

    name: str
    numa: int | None
    active: bool
    """One of its ports at least."""
    state: str
    """Of its first port, as the kernel says it: `ACTIVE`, `DOWN`, …"""
    rate: str = ""
    """Of its first port: `400 Gb/sec (4X NDR)`."""


@dataclass(frozen=True)
class Adapters:
    """All of them."""

    seen: tuple[Hca, ...]
    closed: str | None = None
    """Why /dev/infiniband cannot be used here."""


@dataclass(frozen=True)
class Limits:
    """Resource limits and shared memory; a limit of None is no limit."""

    memlock: int | None
    nofile: int | None
    nofile_hard: int | None
    shm: int | None
    """Size of /dev/shm."""
    shm_error: str | None = None


@dataclass(frozen=True)
class Read:
    """A sample of how fast weights are read."""

    shard: str
    size: int
    """Of that file."""
    total: int
    """Of all weight files."""
    read: int
    seconds: float
    direct: bool
    """Past the page cache."""
    error: str | None = None

    @property
    def rate(self) -> float:
        """Bytes a second."""
        return self.read / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True)
class Cache:
    """The directory of compiled kernels."""

    path: str
    error: str | None
    free: int | None = None


@dataclass(frozen=True)
class Machine:
    """All that was looked at; a part that is None was not asked for, or did not answer in time."""

    gpus: Gpus | None = None
    adapters: Adapters | None = None
    limits: Limits | None = None
    imex: str | None = None
    """Why the IMEX channel cannot be used; empty: it can."""
    read: Read | None = None
    cache: Cache | None = None
