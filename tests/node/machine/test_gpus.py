"""GPUs as NVML shows them: a double of the driver behind the real nvidia-ml-py, and a driver if there is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pynvml
import pytest

from entrypoint.node.machine import gpus
from entrypoint.node.machine.facts import Fabric, Gpus, Xid
from tests.node.machine.nvml_double import Card, Driver

MASK = {
    name: getattr(pynvml, f"NVML_GPU_FABRIC_HEALTH_MASK_SHIFT_{name}")
    for name in (*gpus.ILL, gpus.MISCONFIGURED)
}


def seen(*cards: Card, **driver: Any) -> Gpus:
    return gpus.look([], Driver([*cards], **driver))


def test_a_sound_node() -> None:
    found = seen(*[Card() for _ in range(4)])
    assert found.unseen is None and found.seen is not None and len(found.seen) == 4
    assert (found.driver, found.driver_cuda) == ("580.95.05", (13, 0))
    one = found.seen[0]
    assert (one.name, one.pci, one.mig, one.ecc_uncorrected) == ("NVIDIA GB200", "00000008:01:00.0", False, 0)
    assert one.fabric == Fabric("completed", None, bytes(range(16)).hex(), 7)


def test_what_the_driver_does_not_know_is_not_known_here() -> None:
    found = seen(Card(ecc=None, rows=None, mig=None, state=0))
    assert found.seen is not None
    one = found.seen[0]
    assert (one.ecc_uncorrected, one.remap_pending, one.mig, one.fabric) == (None, None, None, None)


def test_a_lost_gpu_does_not_hide_the_others() -> None:
    found = seen(Card(), Card(lost=True), Card())
    assert found.seen is not None
    assert [gpu.lost is None for gpu in found.seen] == [True, False, True]
    assert "lost" in (found.seen[1].lost or "").lower()


@pytest.mark.parametrize("why", [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED])
def test_no_driver_is_no_fault_of_ours(why: int) -> None:
    found = seen(init=why)
    assert found.seen is None and found.unseen


@pytest.mark.parametrize("state", range(4))
def test_the_fabric_of_older_drivers(state: int) -> None:
    found = seen(Card(state=state, clique=3), old_fabric=True).seen
    assert found is not None
    expected = None if state == 0 else Fabric(gpus.STATES[state], None, bytes(range(16)).hex(), 3)
    assert found[0].fabric == expected


@pytest.mark.parametrize("name", list(gpus.ILL))
def test_each_complaint_of_the_health_mask(name: str) -> None:
    for value, ill in ((0, ()), (1, (gpus.ILL[name],)), (2, ())):
        found = seen(Card(mask=value << MASK[name])).seen
        assert found is not None and found[0].fabric is not None
        assert found[0].fabric.ill == ill


@pytest.mark.parametrize("value", range(9))
def test_a_wrong_configuration_of_the_fabric(value: int) -> None:
    found = seen(Card(mask=value << MASK[gpus.MISCONFIGURED])).seen
    assert found is not None and found[0].fabric is not None
    assert bool(found[0].fabric.ill) is (value > 1)


def test_a_failed_registration_says_why() -> None:
    found = seen(Card(status=pynvml.NVML_ERROR_IN_USE)).seen
    assert found is not None and found[0].fabric is not None and found[0].fabric.error


def test_a_holder_is_named_only_where_it_has_a_gpu_open() -> None:
    """This very process has none: its number may be another process's beyond the container."""
    found = seen(Card(processes=((os.getpid(), 5 << 30), (2**22 + 1, None)))).seen
    assert found is not None
    assert [(h.pid, h.name, h.used) for h in found[0].holders] == [
        (os.getpid(), None, 5 << 30),
        (2**22 + 1, None, None),
    ]


KMSG = """6,1,1000000,-;Linux version
4,2,5000000,-;NVRM: Xid (PCI:0008:01:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.
 SUBSYSTEM=pci
4,3,61000000,-;NVRM: Xid (PCI:0008:01:00): 79, GPU has fallen off the bus.
4,4,61500000,c;NVRM: Xid (PCI:0009:01:00): 13, pid=12, Graphics Exception
"""


def test_xids_of_the_kernels_log(tmp_path: Path) -> None:
    (tmp_path / "kmsg").write_text(KMSG)
    assert gpus.xids(tmp_path / "kmsg", 121.0) == (Xid("0008:01:00", 79, 60), Xid("0009:01:00", 13, 60))
    assert gpus.xids(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("text", "version"),
    [("__version__ = '2.9.1+cu129'\ncuda: Optional[str] = '12.9'\nhip = None\n", (12, 9)),
     ("cuda = '13.0'\n", (13, 0)), ("cuda: Optional[str] = None\n", None), ("", None)],
)  # fmt: skip
def test_the_engines_cuda(tmp_path: Path, text: str, version: tuple[int, int] | None) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "version.py").write_text(text)
    assert gpus.image_cuda([tmp_path / "empty", tmp_path]) == version


def test_a_real_driver() -> None:
    """On a machine with a GPU: the same calls, answered by a driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        pytest.skip(f"no NVIDIA driver here: {error}")
    count = pynvml.nvmlDeviceGetCount()
    found = gpus.look([])
    assert found.unseen is None and found.seen is not None and len(found.seen) == count
    assert found.driver_cuda is not None and found.driver_cuda >= (11, 0)
    for gpu in found.seen:
        assert gpu.name and gpu.total and gpu.used is not None and gpu.used < gpu.total
        assert Path("/sys/bus/pci/devices", gpu.pci[4:]).exists()
