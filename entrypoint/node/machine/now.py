"""What each GPU does at this moment, a line each: `python -m entrypoint.node.machine.now`.

With `--clocks` only what its clock is and why, as JSON.

A program of its own, so that a driver that hangs takes nobody with it. What is wrong with a GPU before a
start is `gpus`' affair.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from entrypoint.node.machine.gpus import asked, decoded, memory, xids

THROTTLES = {
    "nvmlClocksThrottleReasonSwPowerCap": "power cap",
    "nvmlClocksThrottleReasonHwSlowdown": "hardware slowdown",
    "nvmlClocksThrottleReasonSwThermalSlowdown": "heat (software)",
    "nvmlClocksThrottleReasonHwThermalSlowdown": "heat (hardware)",
    "nvmlClocksThrottleReasonHwPowerBrakeSlowdown": "power brake",
}
"""Why clocks are lowered, by NVML's name of the bit."""
GIB = 1 << 30


def lines(nvml: Any) -> Iterator[str]:
    """One for each GPU, and one for each fault (Xid) in the kernel's log. `nvml`: the module `pynvml`."""
    try:
        nvml.nvmlInit()
        count = nvml.nvmlDeviceGetCount()
    except nvml.NVMLError as error:
        yield f"GPUs: cannot ask the driver: {decoded(str(error))}"
        return
    for index in range(count):
        try:
            yield f"GPU {index}: {_now(nvml, nvml.nvmlDeviceGetHandleByIndex(index))}"
        except nvml.NVMLError as error:
            yield f"GPU {index}: {decoded(str(error))}"
    for xid in xids() or ():
        yield f"Xid {xid.number} of {xid.pci}, {xid.age:.0f} s ago"


def _now(nvml: Any, handle: Any) -> str:
    total, used = memory(nvml, handle)
    busy = asked(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
    clock = asked(nvml, nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM)
    most = asked(nvml, nvml.nvmlDeviceGetMaxClockInfo, handle, nvml.NVML_CLOCK_SM)
    power = asked(nvml, nvml.nvmlDeviceGetPowerUsage, handle)
    heat = asked(nvml, nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
    ecc = asked(
        nvml, nvml.nvmlDeviceGetTotalEccErrors, handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
        nvml.NVML_VOLATILE_ECC,
    )  # fmt: skip
    holders = [
        f"{process.pid} ({process.usedGpuMemory / GIB:.1f} GiB)"
        if process.usedGpuMemory
        else f"{process.pid}"
        for process in asked(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle) or ()
    ]
    parts = [
        None if busy is None else f"{busy.gpu} % busy",
        f"{used / GIB:.1f} of {total / GIB:.1f} GiB used",
        None if clock is None else f"{clock} of {most} MHz",
        None if power is None else f"{power / 1000:.0f} W",
        None if heat is None else f"{heat} C",
        *(f"slowed: {text}" for text in _slowed(nvml, handle)),
        f"{ecc} uncorrected ECC errors" if ecc else None,
        f"processes {', '.join(holders)}" if holders else None,
    ]
    return ", ".join(filter(None, parts))


def clocks(nvml: Any) -> Iterator[dict[str, object]]:
    """Of each GPU its clock and the highest (MHz), how busy it is (percent), and why it is slowed.

    A GPU that cannot be asked is left out; where no driver can be, there is none. `nvml`: `pynvml`.
    """
    try:
        nvml.nvmlInit()
        count = nvml.nvmlDeviceGetCount()
    except nvml.NVMLError:
        return
    for index in range(count):
        handle = asked(nvml, nvml.nvmlDeviceGetHandleByIndex, index)
        if handle is None:
            continue
        busy = asked(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
        yield {
            "index": index,
            "busy": None if busy is None else busy.gpu,
            "clock": asked(nvml, nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
            "most": asked(nvml, nvml.nvmlDeviceGetMaxClockInfo, handle, nvml.NVML_CLOCK_SM),
            "slowed": [*_slowed(nvml, handle)],
        }


def _slowed(nvml: Any, handle: Any) -> Iterator[str]:
    mask = asked(nvml, nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle) or 0
    yield from (text for name, text in THROTTLES.items() if mask & getattr(nvml, name, 0))


def main() -> None:
    """Print the lines, or the clocks."""
    wants_clocks = sys.argv[1:] == ["--clocks"]
    try:
        nvml = import_module("pynvml")
    except ImportError:
        print("[]" if wants_clocks else "GPUs: nvidia-ml-py is not installed")
        return
    if wants_clocks:
        print(json.dumps([*clocks(nvml)]))
        return
    for line in lines(nvml):
        print(line, flush=True)


if __name__ == "__main__":
    main()
