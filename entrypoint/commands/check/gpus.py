"""What GPUs mean for a start: facts in, findings out. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from entrypoint.commands.check.findings import Finding, ok, problem, warning
from entrypoint.commands.check.wanted import Wanted
from entrypoint.node.machine.facts import Gpu, Gpus, Version

GIB = 1 << 30
HARDWARE = {
    48: "an uncorrectable ECC error", 64: "a memory row could not be replaced", 74: "an NVLink error",
    79: "the GPU fell off the bus", 95: "an uncontained ECC error", 119: "the GPU's firmware did not answer",
    120: "an error in the GPU's firmware", 140: "an unrecovered ECC error",
    **dict.fromkeys(range(144, 151), "an NVLink error"),
}  # fmt: skip
"""Xids that tell of hardware rather than of a program, by https://docs.nvidia.com/deploy/xid-errors/."""


def judge(gpus: Gpus, wanted: Wanted) -> Iterator[Finding]:
    """Number, driver, and what is wrong with any one of them."""
    if not wanted.gpus:
        return
    yield from _count(gpus, wanted.gpus)
    yield from _driver(gpus)
    for gpu in gpus.seen or ():
        yield from _one(gpu, wanted)
    yield from _uneven(gpus.seen or ())
    for xid in gpus.xids or ():
        if xid.number in HARDWARE:
            text = f"{xid.pci}: Xid {xid.number} ({HARDWARE[xid.number]}) {_ago(xid.age)}"
            yield warning("Xid", f"{text}: reset the GPU or leave the node out, unless that has been done")


def _count(gpus: Gpus, wanted: int) -> Iterator[Finding]:
    here = gpus.files if gpus.seen is None else sum(gpu.lost is None for gpu in gpus.seen)
    if here < wanted:
        text = f"cannot see {wanted} GPUs: {here}: start with --gpus all, or set GLM47_GPUS_PER_NODE"
        yield problem("GPUs", text)
    elif gpus.seen is None:
        yield ok("GPUs", f"{gpus.files} devices")
        yield warning("NVML", f"no more is known of the GPUs: {gpus.unseen}")
    else:
        names = ", ".join(sorted({gpu.name for gpu in gpus.seen if gpu.lost is None}))
        yield ok("GPUs", f"{here} of {names}, driver {gpus.driver or 'unknown'}")


def _driver(gpus: Gpus) -> Iterator[Finding]:
    """Within a major release, else by libraries: https://docs.nvidia.com/deploy/cuda-compatibility/."""
    driver, image = gpus.driver_cuda, gpus.image_cuda
    if driver is None or image is None:
        return
    text = f"driver {gpus.driver} knows CUDA {_version(driver)}, the engine was built with {_version(image)}"
    if driver >= image:
        yield ok("driver", text)
    elif driver[0] == image[0]:
        yield warning(
            "driver", f"{text}: kernels that are compiled at the start may not load: update the driver"
        )
    elif gpus.compat:
        yield warning("driver", f"{text}: it needs the image's compatibility libraries: update the driver")
    else:
        have, need = f"driver {gpus.driver} has {_version(driver)}", f"CUDA {_version(image)} of the engine"
        yield problem(
            "driver",
            f"cannot run {need}: {have}: update the driver, or use an older image",
        )


def _version(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


def _one(gpu: Gpu, wanted: Wanted) -> Iterator[Finding]:
    name = f"GPU {gpu.index}"
    if gpu.lost is not None:
        yield problem(name, f"cannot use {name}: {gpu.lost}: reset it, or leave the node out")
        return
    if gpu.mig:
        yield problem(
            name, f"cannot use {name}: MIG is on: ranks need whole GPUs: turn it off (nvidia-smi -mig 0)"
        )
    if gpu.remap_failed:
        yield problem(
            name, f"cannot use {name}: a row of its memory could not be replaced: have it exchanged"
        )
    if gpu.ecc_uncorrected:
        count = f"{gpu.ecc_uncorrected} uncorrected ECC errors since the driver was loaded"
        yield problem(name, f"cannot rely on {name}: {count}: reset it, or leave the node out")
    if gpu.remap_pending:
        yield warning(name, "a row of its memory waits to be replaced: reset it when nobody uses it")
    yield from _memory(gpu, wanted)
    yield from _fabric(gpu, wanted)


def _memory(gpu: Gpu, wanted: Wanted) -> Iterator[Finding]:
    if not gpu.total or gpu.used is None:
        return
    name, share = f"GPU {gpu.index}", gpu.used / gpu.total
    if gpu.used < GIB and not gpu.holders:
        return
    who = ", ".join(
        f"{h.name or 'a process that is not seen from here'} (pid {h.pid}"
        + (f", {h.used / GIB:.1f} GiB)" if h.used is not None else ")")
        for h in gpu.holders
    )
    have = f"{gpu.used / GIB:.1f} of {gpu.total / GIB:.0f} GiB are taken by "
    have += who or "nobody that is seen from here"
    if share > 1 - wanted.memory:
        need = f"the engine takes {wanted.memory:.0%}"
        yield problem(name, f"cannot use {name}: {have}: {need}: stop that, or lower GLM47_MEM_FRACTION")
    else:
        yield warning(name, have)


def _fabric(gpu: Gpu, wanted: Wanted) -> Iterator[Finding]:
    """A GPU outside of the fabric hangs the first collective over NVLink; beside it there is the network."""
    found, name = gpu.fabric, f"GPU {gpu.index}"
    if found is None:
        return
    text = None
    if found.state != "completed":
        text = f"cannot use NVLink of {name}: its fabric is {found.state}: see the node's fabric manager"
    elif found.error is not None:
        text = f"cannot use NVLink of {name}: {found.error}: see the node's fabric manager"
    if text is not None:
        yield problem(name, text) if wanted.multi_node_nvlink else warning(name, text)
    for ill in found.ill:
        yield warning(name, f"NVLink: {ill}")


def _uneven(gpus: tuple[Gpu, ...]) -> Iterator[Finding]:
    """GPUs of one node are alike, or one of them was wired or replaced wrongly."""
    here = [gpu for gpu in gpus if gpu.lost is None]
    if len(models := {gpu.name for gpu in here}) > 1:
        yield warning("GPUs", f"they differ: {', '.join(sorted(models))}")
    cliques = {
        (g.fabric.cluster, g.fabric.clique) for g in here if g.fabric and g.fabric.state == "completed"
    }
    if len(cliques) > 1:
        numbers = ", ".join(str(clique) for _, clique in sorted(cliques))
        yield warning("GPUs", f"they are of several NVLink cliques: {numbers}")


def _ago(seconds: float) -> str:
    hours = seconds / 3600
    return f"{seconds / 60:.0f} min ago" if hours < 1 else f"{hours:.0f} h ago"
