"""GPUs as NVML sees them (nvidia-ml-py), the driver's errors in the kernel's log, and the image's CUDA."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from ctypes import byref
from importlib import import_module
from pathlib import Path
from typing import Any

from entrypoint.node.machine.facts import Fabric, Gpu, Gpus, Holder, Version, Xid

STATES = ("not supported", "not started", "in progress", "completed")
"""NVML_GPU_FABRIC_STATE_*, in their order."""
ILL = {
    "DEGRADED_BW": "degraded bandwidth",
    "ROUTE_RECOVERY": "its routes are being recovered",
    "ROUTE_UNHEALTHY": "a route is broken",
    "ACCESS_TIMEOUT_RECOVERY": "an access timeout is being recovered from",
}
"""Fields of NVML_GPU_FABRIC_HEALTH_MASK that are 1 (true) when something is wrong."""
MISCONFIGURED = "INCORRECT_CONFIGURATION"
"""The field that is 1 when nothing is wrong, and says what is by a larger number."""
KMSG = Path("/dev/kmsg")
COMPAT = Path("/usr/local/cuda/compat")
_XID = re.compile(r"NVRM: Xid \(PCI:([0-9a-fA-F:.]+)\): (\d+)")
_TORCH_CUDA = re.compile(r"^cuda\b[^=\n]*=\s*['\"](\d+)\.(\d+)", re.MULTILINE)


def look(torch_dirs: list[Path], nvml: Any = None) -> Gpus:
    """All GPUs of this machine that the container was given; never raises.

    `torch_dirs`: where packages of the engine may be. `nvml`: the module `pynvml`, imported when None.
    """
    files = len([*Path("/dev").glob("nvidia[0-9]*")])
    own = Gpus(files, image_cuda=image_cuda(torch_dirs), compat=any(COMPAT.glob("libcuda.so*")))
    if nvml is None:
        try:
            nvml = import_module("pynvml")
        except ImportError:
            return _with(own, unseen="nvidia-ml-py is not installed")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return _with(own, unseen=_text(error))
    try:
        return _with(
            own,
            seen=tuple(_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount())),
            driver=asked(nvml, nvml.nvmlSystemGetDriverVersion),
            driver_cuda=_cuda(asked(nvml, nvml.nvmlSystemGetCudaDriverVersion_v2)),
            xids=xids(),
        )
    except nvml.NVMLError as error:
        return _with(own, unseen=_text(error))
    finally:
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def _with(gpus: Gpus, **more: Any) -> Gpus:
    from dataclasses import replace

    return replace(gpus, **more)


def _text(error: Exception) -> str:
    text = str(error)
    return text.decode() if isinstance(text, bytes) else text


def asked(nvml: Any, question: Callable[..., Any], *of: Any) -> Any:
    """The answer; None where the driver or this GPU does not know the question."""
    try:
        return question(*of)
    except nvml.NVMLError:
        return None


def _cuda(number: int | None) -> Version | None:
    return None if number is None else (number // 1000, number % 1000 // 10)


def _gpu(nvml: Any, index: int) -> Gpu:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        name = nvml.nvmlDeviceGetName(handle)
        total, used = memory(nvml, handle)
    except nvml.NVMLError as error:
        return Gpu(index, lost=_text(error))
    uncorrected = (nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC)
    rows = asked(nvml, nvml.nvmlDeviceGetRemappedRows, handle)
    mig = asked(nvml, nvml.nvmlDeviceGetMigMode, handle)
    place = asked(nvml, nvml.nvmlDeviceGetPciInfo, handle)
    pci = "" if place is None else decoded(place.busId).lower()
    return Gpu(
        index,
        name=name,
        pci=pci,
        numa=_numa(pci),
        total=total,
        used=used,
        holders=tuple(_holders(nvml, handle)),
        ecc_uncorrected=asked(nvml, nvml.nvmlDeviceGetTotalEccErrors, handle, *uncorrected),
        remap_pending=None if rows is None else bool(rows[2]),
        remap_failed=None if rows is None else bool(rows[3]),
        mig=None if mig is None else mig[0] == nvml.NVML_DEVICE_MIG_ENABLE,
        fabric=_fabric(nvml, handle),
    )


def decoded(text: Any) -> str:
    """NVML's text, which older drivers give as bytes."""
    return text.decode() if isinstance(text, bytes) else str(text)


def memory(nvml: Any, handle: Any) -> tuple[int, int]:
    """(bytes, bytes in use); a driver that does not know the newer call counts its own among the latter."""
    try:
        found = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    except nvml.NVMLError:
        found = nvml.nvmlDeviceGetMemoryInfo(handle)
    return int(found.total), int(found.used)


def _holders(nvml: Any, handle: Any) -> Iterator[Holder]:
    for process in asked(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle) or ():
        yield Holder(process.pid, _name(process.pid), process.usedGpuMemory)


def _name(pid: int) -> str | None:
    """The name of process `pid`, if it has a GPU open: the driver may count processes otherwise than we."""
    place = Path(f"/proc/{pid}")
    try:
        if any(str(file.readlink()).startswith("/dev/nvidia") for file in (place / "fd").iterdir()):
            return (place / "comm").read_text().strip()
    except OSError:
        pass
    return None


def _fabric(nvml: Any, handle: Any) -> Fabric | None:
    try:
        found = nvml.c_nvmlGpuFabricInfoV_t()
        nvml.nvmlDeviceGetGpuFabricInfoV(handle, byref(found))
    except nvml.NVMLError:
        found = nvml.c_nvmlGpuFabricInfo_t()
        if asked(nvml, nvml.nvmlDeviceGetGpuFabricInfo, handle, byref(found)) is None:
            return None
    if found.state == nvml.NVML_GPU_FABRIC_STATE_NOT_SUPPORTED:
        return None
    bad = found.state == nvml.NVML_GPU_FABRIC_STATE_COMPLETED and found.status != nvml.NVML_SUCCESS
    return Fabric(
        STATES[found.state] if found.state < len(STATES) else str(found.state),
        _text(nvml.NVMLError(found.status)) if bad else None,
        bytes(found.clusterUuid).hex(),
        found.cliqueId,
        tuple(_ill(nvml, getattr(found, "healthMask", 0))),
    )


def _ill(nvml: Any, mask: int) -> Iterator[str]:
    def field(name: str) -> int:
        prefix = "NVML_GPU_FABRIC_HEALTH_MASK"
        shift = getattr(nvml, f"{prefix}_SHIFT_{name}", None)
        return 0 if shift is None else mask >> shift & int(getattr(nvml, f"{prefix}_WIDTH_{name}"))

    yield from (text for name, text in ILL.items() if field(name) == 1)
    if (why := field(MISCONFIGURED)) > 1:
        yield f"it is wrongly configured (NVML's number {why})"


def _numa(pci: str) -> int | None:
    """The NUMA node of a PCI device; NVML writes eight digits of the domain, the kernel four."""
    domain, _, rest = pci.partition(":")
    return numa_of(Path("/sys/bus/pci/devices", f"{domain[-4:]}:{rest}"))


def numa_of(device: Path) -> int | None:
    """The NUMA node of a device in /sys; None: there is but one, or nobody says."""
    try:
        number = int((device / "numa_node").read_text())
    except (OSError, ValueError):
        return None
    return number if number >= 0 else None


def xids(kmsg: Path = KMSG, now: float | None = None) -> tuple[Xid, ...] | None:
    """Errors of NVIDIA's driver in the kernel's log since the boot; None where it must not be read.

    `now`: seconds since the boot.
    """
    try:
        descriptor = os.open(kmsg, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    found: dict[tuple[str, int], Xid] = {}
    now = time.clock_gettime(time.CLOCK_BOOTTIME) if now is None else now
    try:
        while record := os.read(descriptor, 8192):
            for line in record.decode(errors="replace").splitlines():
                if match := _XID.search(line):
                    stamp = line.partition(";")[0].split(",")
                    age = now - int(stamp[2]) / 1e6 if len(stamp) > 2 and stamp[2].isdigit() else 0.0
                    found[match[1], int(match[2])] = Xid(match[1], int(match[2]), round(max(age, 0.0)))
    except BlockingIOError:
        pass
    except OSError:
        return None if not found else tuple(found.values())
    finally:
        os.close(descriptor)
    return tuple(found.values())


def image_cuda(directories: list[Path]) -> Version | None:
    """The CUDA that torch was built with, by its version.py in one of `directories`."""
    for directory in directories:
        with contextlib.suppress(OSError):
            if match := _TORCH_CUDA.search((directory / "torch" / "version.py").read_text()):
                return int(match[1]), int(match[2])
    return None
