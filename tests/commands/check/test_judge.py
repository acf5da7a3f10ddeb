"""What a machine's facts mean: each fault is one member of a table, and a sound machine has none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from entrypoint.commands.check.findings import render
from entrypoint.commands.check.judge import judge
from entrypoint.commands.check.wanted import Wanted
from entrypoint.node.machine.facts import (
    Adapters,
    Cache,
    Fabric,
    Gpu,
    Gpus,
    Hca,
    Holder,
    Limits,
    Machine,
    Read,
    Xid,
)

GIB = 1 << 30
WANTED = Wanted(
    gpus=4, weights=True, frontend=True, multi_node_nvlink=True, rdma=True, cache="/cache",
    start_timeout=3600, stall_timeout=1800,
)  # fmt: skip
FABRIC = Fabric("completed", None, "00ff", 7)
CARDS = tuple(
    Gpu(n, "NVIDIA GB200", f"0008:0{n}:00.0", n // 2, 186 * GIB, 0, (), 0, False, False, False, FABRIC)
    for n in range(4)
)
HCAS = tuple(Hca(f"mlx5_{n}", n // 2, True, "ACTIVE", "400 Gb/sec (4X NDR)") for n in range(4))
SOUND = Machine(
    gpus=Gpus(4, CARDS, None, "580.95.05", (13, 0), (12, 9)),
    adapters=Adapters(HCAS),
    limits=Limits(None, 1 << 20, 1 << 20, 64 * GIB),
    imex="",
    read=Read("model-1.safetensors", 5 * 10**9, 200 * 10**9, 4 * 10**9, 2.0, True),
    cache=Cache("/cache", None, 10**12),
)


def with_card(**fields: Any) -> Machine:
    assert SOUND.gpus is not None
    return replace(SOUND, gpus=replace(SOUND.gpus, seen=(CARDS[0], replace(CARDS[1], **fields), *CARDS[2:])))


def with_gpus(**fields: Any) -> Machine:
    assert SOUND.gpus is not None
    return replace(SOUND, gpus=replace(SOUND.gpus, **fields))


def with_limits(**fields: Any) -> Machine:
    assert SOUND.limits is not None
    return replace(SOUND, limits=replace(SOUND.limits, **fields))


def with_read(**fields: Any) -> Machine:
    assert SOUND.read is not None
    return replace(SOUND, read=replace(SOUND.read, **fields))


def with_hcas(*hcas: Hca, closed: str | None = None) -> Machine:
    return replace(SOUND, adapters=Adapters(hcas, closed))


DOWN = Hca("mlx5_3", 1, False, "DOWN")
FAULTS: dict[str, tuple[Machine, str, str, str]] = {
    # name: the machine, the state, what, part of the text
    "a GPU is missing": (with_gpus(seen=CARDS[:3]), "problem", "GPUs", "cannot see 4 GPUs: 3"),
    "no NVML, and no device": (with_gpus(seen=None, files=0, unseen="x"), "problem", "GPUs", "cannot see 4"),
    "no NVML": (with_gpus(seen=None, unseen="not found"), "warning", "NVML", "not found"),
    "a GPU is lost": (with_card(lost="GPU is lost"), "problem", "GPU 1", "GPU is lost"),
    "MIG": (with_card(mig=True), "problem", "GPU 1", "MIG is on"),
    "ECC": (with_card(ecc_uncorrected=2), "problem", "GPU 1", "2 uncorrected ECC errors"),
    "a row could not be replaced": (with_card(remap_failed=True), "problem", "GPU 1", "could not be"),
    "a row waits": (with_card(remap_pending=True), "warning", "GPU 1", "waits to be replaced"),
    "memory is taken by somebody": (
        with_card(used=100 * GIB, holders=(Holder(4711, "python3", 99 * GIB),)),
        "problem", "GPU 1", "100.0 of 186 GiB are taken by python3 (pid 4711, 99.0 GiB)",
    ),
    "memory is taken by nobody that is seen": (
        with_card(used=40 * GIB), "problem", "GPU 1", "nobody that is seen from here",
    ),
    "a little memory is taken": (
        with_card(used=2 * GIB, holders=(Holder(1, None, None),)), "warning", "GPU 1", "from here (pid 1)",
    ),
    "the fabric is not up": (
        with_card(fabric=replace(FABRIC, state="in progress")), "problem", "GPU 1", "in progress",
    ),
    "the fabric refused it": (with_card(fabric=replace(FABRIC, error="Used")), "problem", "GPU 1", "Used"),
    "the fabric is slow": (
        with_card(fabric=replace(FABRIC, ill=("degraded",))), "warning", "GPU 1", "degraded",
    ),
    "two cliques in one node": (with_card(fabric=replace(FABRIC, clique=8)), "warning", "GPUs", "7, 8"),
    "another model": (with_card(name="NVIDIA B200"), "warning", "GPUs", "NVIDIA B200, NVIDIA GB200"),
    "an older driver": (with_gpus(driver_cuda=(12, 4)), "warning", "driver", "knows CUDA 12.4"),
    "a driver too old": (with_gpus(driver_cuda=(11, 8)), "problem", "driver", "cannot run CUDA 12.9"),
    "a driver too old, with libraries": (
        with_gpus(driver_cuda=(11, 8), compat=True), "warning", "driver", "compatibility libraries",
    ),
    "Xid": (with_gpus(xids=(Xid("0008:01:00", 79, 7200),)), "warning", "Xid", "Xid 79"),
    "no IMEX channel": (replace(SOUND, imex="no /dev/x"), "warning", "IMEX", "no /dev/x"),
    "no adapters to open": (with_hcas(*HCAS, closed="no uverbs"), "warning", "HCA", "no uverbs"),
    "an adapter is down": (with_hcas(*HCAS[:3], DOWN), "warning", "HCA", "mlx5_3 is not up: DOWN"),
    "adapters of one NUMA node are down": (
        with_hcas(*HCAS[:2], replace(DOWN, name="mlx5_2"), DOWN), "warning", "HCA",
        "none is up on NUMA node 1, where GPU 2, 3 is",
    ),
    "little shared memory": (with_limits(shm=64 << 20), "problem", "/dev/shm", "64 MiB"),
    "no shared memory": (with_limits(shm=None, shm_error="gone"), "problem", "/dev/shm", "gone"),
    "locked memory": (with_limits(memlock=8 << 20), "warning", "memlock", "8192 KiB"),
    "open files, hard": (with_limits(nofile_hard=1024, nofile=1024), "warning", "nofile", "SGLang asks"),
    "open files, soft": (with_limits(nofile=1024), "warning", "nofile", "a frontend"),
    "a shard is not read": (with_read(error="is missing"), "problem", "reading", "is missing"),
    "nothing is read": (with_read(read=0), "problem", "reading", "not a byte"),
    "a shard stalls the start": (with_read(read=2 * 10**6, total=2 * 10**9), "problem", "reading", "STALL_"),
    "the model takes too long": (with_read(read=80 * 10**6), "problem", "reading", "TIMEOUT is 60 min"),
    "the model takes long": (with_read(read=160 * 10**6), "warning", "reading", "more than half"),
    "the cache is not writable": (
        replace(SOUND, cache=Cache("/cache", "Read-only file system")), "problem", "cache", "Read-only",
    ),
}  # fmt: skip


def test_a_sound_machine_has_nothing_but_good_news() -> None:
    found = judge(SOUND, WANTED)
    assert {f.state for f in found} == {"ok"}, render(found)
    assert {f.what for f in found} == {"GPUs", "driver", "IMEX", "HCA", "/dev/shm", "reading", "cache"}
    assert "2.00 GB/s: 200 GB of weights in 100 s" not in render(found)
    assert "2.00 GB/s: 200 GB of weights in 2 min" in render(found)


@pytest.mark.parametrize("name", list(FAULTS))
def test_each_fault_is_found(name: str) -> None:
    machine, state, what, text = FAULTS[name]
    found = judge(machine, WANTED)
    assert [f for f in found if (f.state, f.what) == (state, what) and text in f.text], render(found)
    assert all(f.exit_code for f in found if f.state == "problem")


@pytest.mark.parametrize("name", [n for n, fault in FAULTS.items() if fault[1] == "problem"])
def test_no_fault_makes_another_problem(name: str) -> None:
    machine, _, what, _ = FAULTS[name]
    problems = {f.what for f in judge(machine, WANTED) if f.state == "problem"}
    assert problems == {what} | ({"GPUs"} if name == "a GPU is lost" else set())


def test_nothing_is_asked_of_a_machine_without_an_engine() -> None:
    for machine, *_ in FAULTS.values():
        found = judge(replace(machine, read=None, cache=None), Wanted())
        assert found == [], render(found)


def test_a_broken_fabric_is_a_warning_where_no_worker_needs_it() -> None:
    machine = with_card(fabric=replace(FABRIC, state="not started"))
    states = {f.state for f in judge(machine, replace(WANTED, multi_node_nvlink=False)) if f.what == "GPU 1"}
    assert states == {"warning"}


def test_an_adapter_that_is_named_must_be_up() -> None:
    found = judge(with_hcas(*HCAS[:3], DOWN), replace(WANTED, adapters=("mlx5_3", "mlx5_9")))
    texts = [f.text for f in found if f.state == "problem"]
    assert ["DOWN" in texts[0], "it is not there" in texts[1], len(texts)] == [True, True, 2]
