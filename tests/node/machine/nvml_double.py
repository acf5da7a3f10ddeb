"""A test double: a driver that is not there, behind nvidia-ml-py's own names, structures and errors.

Only questions that a driver answers are replaced, and each must be one that nvidia-ml-py has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml

LOST = pynvml.NVML_ERROR_GPU_IS_LOST
NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED
GIB = 1 << 30


@dataclass
class Card:
    """A GPU of the double, and what it answers; an int of an error's number stands for that error."""

    name: str = "NVIDIA GB200"
    total: int = 186 * GIB
    used: int = 0
    pci: bytes = b"00000008:01:00.0"
    processes: tuple[tuple[int, int | None], ...] = ()
    ecc: int | None = 0
    rows: tuple[int, int, int, int] | None = (0, 0, 0, 0)
    mig: int | None = 0
    state: int = 3
    status: int = 0
    cluster: bytes = bytes(range(16))
    clique: int = 7
    mask: int = 0
    lost: bool = False
    busy: int | None = 0
    """Percent of the last moment in which something ran."""
    clock: tuple[int, int] | None = (1965, 2062)
    """MHz now, and at most."""
    watts: float | None = 200.0
    celsius: int | None = 40
    throttle: int = 0


@dataclass
class Driver:
    """Stands in for `pynvml`; what is not defined here is nvidia-ml-py's own."""

    cards: list[Card]
    version: str = "580.95.05"
    cuda: int = 13000
    init: int | None = None
    old_fabric: bool = False
    """A driver that only knows the first form of the fabric's question."""
    calls: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("nvml") and callable(getattr(pynvml, name)) and name[4:5].isupper():
            return self._question(name)
        return getattr(pynvml, name)

    def _question(self, name: str) -> Callable[..., Any]:
        if name in ("nvmlMemory_v2",) or isinstance(getattr(pynvml, name), type):
            own: Callable[..., Any] = getattr(pynvml, name)
            return own
        answer: Callable[..., Any] = getattr(self, f"_{name[4:]}")
        self.calls.append(name)
        return answer

    @staticmethod
    def _known(value: Any) -> Any:
        if value is None:
            raise pynvml.NVMLError(NOT_SUPPORTED)
        return value

    def _Init(self) -> None:
        if self.init is not None:
            raise pynvml.NVMLError(self.init)

    def _Shutdown(self) -> None: ...

    def _DeviceGetCount(self) -> int:
        return len(self.cards)

    def _SystemGetDriverVersion(self) -> str:
        return self.version

    def _SystemGetCudaDriverVersion_v2(self) -> int:
        return self.cuda

    def _DeviceGetHandleByIndex(self, index: int) -> Card:
        if self.cards[index].lost:
            raise pynvml.NVMLError(LOST)
        return self.cards[index]

    def _DeviceGetName(self, card: Card) -> str:
        return card.name

    def _DeviceGetMemoryInfo(self, card: Card, version: int | None = None) -> Any:
        assert version == pynvml.nvmlMemory_v2
        return SimpleNamespace(total=card.total, used=card.used)

    def _DeviceGetPciInfo(self, card: Card) -> Any:
        return SimpleNamespace(busId=card.pci)

    def _DeviceGetComputeRunningProcesses(self, card: Card) -> list[Any]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in card.processes]

    def _DeviceGetTotalEccErrors(self, card: Card, kind: int, counter: int) -> Any:
        assert (kind, counter) == (pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC)
        return self._known(card.ecc)

    def _DeviceGetUtilizationRates(self, card: Card) -> Any:
        return SimpleNamespace(gpu=self._known(card.busy), memory=0)

    def _DeviceGetClockInfo(self, card: Card, kind: int) -> Any:
        assert kind == pynvml.NVML_CLOCK_SM
        return self._known(card.clock)[0]

    def _DeviceGetMaxClockInfo(self, card: Card, kind: int) -> Any:
        assert kind == pynvml.NVML_CLOCK_SM
        return self._known(card.clock)[1]

    def _DeviceGetPowerUsage(self, card: Card) -> Any:
        return round(1000 * self._known(card.watts))

    def _DeviceGetTemperature(self, card: Card, sensor: int) -> Any:
        assert sensor == pynvml.NVML_TEMPERATURE_GPU
        return self._known(card.celsius)

    def _DeviceGetCurrentClocksThrottleReasons(self, card: Card) -> int:
        return card.throttle

    def _DeviceGetRemappedRows(self, card: Card) -> Any:
        return self._known(card.rows)

    def _DeviceGetMigMode(self, card: Card) -> Any:
        return [self._known(card.mig), card.mig]

    def _DeviceGetGpuFabricInfoV(self, card: Card, to: Any) -> int:
        if self.old_fabric:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        to._obj.healthMask = card.mask
        return self._DeviceGetGpuFabricInfo(card, to)

    def _DeviceGetGpuFabricInfo(self, card: Card, to: Any) -> int:
        found = to._obj
        found.state, found.status, found.cliqueId = card.state, card.status, card.clique
        for index, byte in enumerate(card.cluster):
            found.clusterUuid[index] = byte
        return 0
