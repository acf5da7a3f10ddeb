"""What a machine means for a start: facts in, findings out. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from entrypoint.commands.check import gpus
from entrypoint.commands.check.findings import Finding, ok, problem, warning
from entrypoint.commands.check.wanted import Wanted
from entrypoint.errors import ExitCode
from entrypoint.node.machine.facts import Adapters, Cache, Gpus, Hca, Limits, Machine, Read

SHM_LEAST = 1 << 30
"""Bytes of /dev/shm that a worker's ranks need for NCCL's segments; Docker's default is 64 MiB."""
FILES = 65535
"""Open files that SGLang asks for when it starts (`set_ulimit`), as far as the hard limit lets it."""
FRONTEND_FILES = 4096
"""Open files below which a frontend's clients are counted in hundreds: each takes two."""


def judge(machine: Machine, wanted: Wanted) -> list[Finding]:
    """Everything that can be said of `machine`."""
    found: list[Finding] = []
    if machine.gpus is not None:
        found += gpus.judge(machine.gpus, wanted)
    if machine.imex is not None:
        found += _imex(machine.imex, wanted)
    if machine.adapters is not None:
        found += _adapters(machine.adapters, machine.gpus, wanted)
    if machine.limits is not None:
        found += _limits(machine.limits, wanted)
    if machine.read is not None:
        found += _read(machine.read, wanted)
    if machine.cache is not None:
        found += _cache(machine.cache)
    return found


def _imex(why: str, wanted: Wanted) -> Iterator[Finding]:
    if not wanted.multi_node_nvlink:
        return
    if why:
        text = f"{why}: multi-node NVLink will not work: add the IMEX channel"
        yield warning("IMEX", f"{text}, or set GLM47_MNNVL=off")
    else:
        yield ok("IMEX", "a channel can be opened")


def _adapters(found: Adapters, seen: Gpus | None, wanted: Wanted) -> Iterator[Finding]:
    if not wanted.rdma:
        return
    up = [hca for hca in found.seen if hca.active]
    for name in wanted.adapters:
        if name not in {hca.name for hca in up}:
            state = next((hca.state for hca in found.seen if hca.name == name), "it is not there")
            yield problem(
                "HCA", f"cannot use adapter {name}: {state}: leave it out of NCCL_IB_HCA and UCX_NET_DEVICES"
            )
    if not found.seen:
        if not wanted.multi_node_nvlink:
            yield warning("HCA", "no adapter for RDMA: what goes between nodes goes over TCP")
        return
    for hca in found.seen:
        if not hca.active and hca.name not in wanted.adapters:
            yield warning("HCA", f"{hca.name} is not up: {hca.state}")
    if found.closed is not None:
        text = f"{len(found.seen)} adapters, and none can be opened: {found.closed}"
        yield warning("HCA", f"{text}: give the container /dev/infiniband")
    elif up:
        kinds = ", ".join(sorted({hca.rate for hca in up if hca.rate}))
        yield ok("HCA", f"{len(up)} of {len(found.seen)} up" + (f", {kinds}" if kinds else ""))
    yield from _far(up, found, seen)


def _far(up: list[Hca], found: Adapters, seen: Gpus | None) -> Iterator[Finding]:
    """GPUs whose NUMA node has adapters, none of which is up: their traffic crosses the sockets."""
    have = {hca.numa for hca in found.seen} - {None}
    with_one = {hca.numa for hca in up}
    gpus_of: dict[int, list[int]] = {}
    for gpu in (seen.seen if seen is not None else None) or ():
        if gpu.numa in have and gpu.numa is not None and gpu.numa not in with_one:
            gpus_of.setdefault(gpu.numa, []).append(gpu.index)
    for node, indices in gpus_of.items():
        names = ", ".join(map(str, indices))
        yield warning("HCA", f"none is up on NUMA node {node}, where GPU {names} is")


def _limits(limits: Limits, wanted: Wanted) -> Iterator[Finding]:
    if wanted.weights:
        yield from _shared_memory(limits)
        if limits.memlock is not None:
            text = f"locked memory is limited to {limits.memlock >> 10} KiB"
            yield warning("memlock", f"{text}: RDMA may fail: --ulimit memlock=-1, IPC_LOCK")
        if limits.nofile_hard is not None and limits.nofile_hard < FILES:
            text = f"at most {limits.nofile_hard} open files, SGLang asks for {FILES}"
            yield warning("nofile", f"{text}: --ulimit nofile={FILES + 1}")
    if wanted.frontend and limits.nofile is not None and limits.nofile < FRONTEND_FILES:
        text = f"at most {limits.nofile} open files: a frontend has two for each request"
        yield warning("nofile", f"{text}: --ulimit nofile={FILES + 1}")


def _shared_memory(limits: Limits) -> Iterator[Finding]:
    if limits.shm is None:
        yield problem("/dev/shm", f"cannot use /dev/shm: {limits.shm_error}: mount one")
    elif limits.shm < SHM_LEAST:
        size = f"{limits.shm >> 20} MiB"
        text = f"cannot use /dev/shm: {size}: NCCL needs more: --ipc=host, --shm-size or an emptyDir"
        yield problem("/dev/shm", text)
    else:
        yield ok("/dev/shm", f"{limits.shm >> 20} MiB")


def _read(read: Read, wanted: Wanted) -> Iterator[Finding]:
    if read.error is not None:
        yield problem(
            "reading",
            f"cannot read {read.shard}: {read.error}: check the model's file system",
            ExitCode.MODEL,
        )
        return
    if not read.read:
        silent = f"not a byte in {read.seconds:.1f} s"
        text = f"cannot read {read.shard}: {silent}: check the model's file system"
        yield problem("reading", text, ExitCode.TEMPFAIL)
        return
    whole, shard = read.total / read.rate, read.size / read.rate
    cached = "" if read.direct else ", perhaps from the page cache"
    text = f"{read.rate / 1e9:.2f} GB/s{cached}: {read.total / 1e9:.0f} GB of weights in {minutes(whole)}"
    if shard > wanted.stall_timeout:
        limit = f"one file takes {minutes(shard)}, GLM47_STALL_TIMEOUT is {minutes(wanted.stall_timeout)}"
    elif whole > wanted.start_timeout:
        limit = f"GLM47_START_TIMEOUT is {minutes(wanted.start_timeout)}"
    elif whole > wanted.start_timeout / 2:
        yield warning("reading", f"{text}, more than half of GLM47_START_TIMEOUT")
        return
    else:
        yield ok("reading", text)
        return
    yield problem(
        "reading",
        f"cannot load the model in time: {text}: {limit}: use a faster file system, or raise it",
        ExitCode.TEMPFAIL,
    )


def minutes(seconds: float) -> str:
    """`40 s`, `12 min`, `2.5 h`. `seconds` is a duration."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _cache(cache: Cache) -> Iterator[Finding]:
    if cache.error is not None:
        text = f"cannot write {cache.path}: {cache.error}: make it writable, or set GLM47_CACHE_DIR"
        yield problem("cache", text, ExitCode.CANTCREAT)
    elif cache.free is not None:
        yield ok("cache", f"{cache.path} is writable, {cache.free / 1e9:.0f} GB are free")
