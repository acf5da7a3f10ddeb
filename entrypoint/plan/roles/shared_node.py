"""Workers of one role that share a node, each in a container of its own: GPUs, ports, what contradicts. Pure.

A Slurm job starts them as several tasks of a node (docs/decisions/workers-per-node.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from entrypoint.plan.context import Context
from entrypoint.plan.diagnostics import Diagnostic, problem
from entrypoint.plan.endpoint import Endpoint
from entrypoint.settings.schema import Settings

if TYPE_CHECKING:
    from entrypoint.node.topology import Node, Topology

DEVICES = "CUDA_VISIBLE_DEVICES"
SGLANG_PORT, SGLANG_PORTS = 30000, 1000
"""SGLang's --port, and how many above it it derives others from: 13, 233 to 255 with DP attention, and in
0.5.6.post2 one for NCCL between 100 and 1000 (server_args.py, data_parallel_controller.py)."""
MOVED_BY_JOB = {
    "health": "GLM47_HEALTH_PORT",
    "system": "GLM47_SYSTEM_PORT",
    "bootstrap": "GLM47_BOOTSTRAP_PORT",
}
"""Ports that each worker of a node has for itself, and the settings by which it does."""


def setting_of(role: str) -> str:
    """What says how many workers of `role` share a node."""
    return f"GLM47_{'PREFILL' if role == 'prefill' else 'DECODE'}_WORKERS_PER_NODE"


def per_node(s: Settings, role: str) -> int:
    """How many workers of `role` share a node."""
    return s.prefill_workers_per_node if role == "prefill" else s.decode_workers_per_node


def here(ctx: Context) -> int:
    """How many workers this node has: more than one only in a Slurm job."""
    job = ctx.placement.job
    return 1 if job is None else len(job.topology.places(job.node.name))


def check(ctx: Context, role: str, taken: int, tp: str) -> Iterator[Diagnostic]:
    """Whether a node has the GPUs that the workers of `role` which share it take.

    `taken`: GPUs of one of them, `tp`: the setting or extra argument that says so.
    """
    each, gpus = per_node(ctx.settings, role), ctx.settings.gpus_per_node
    if each == 1:
        return
    setting = setting_of(role)
    unset = tp == "GLM47_TP" and ctx.settings.tp is None
    if unset and gpus % each:
        fits = ", ".join(str(n) for n in range(1, gpus + 1) if gpus % n == 0)
        yield problem(
            f"cannot use {setting}: {each}: {gpus} GPUs (GLM47_GPUS_PER_NODE) do not divide by it: "
            f"use one of {fits}, or set GLM47_TP"
        )
    elif each * taken > gpus:
        most = gpus // taken
        yield problem(
            f"cannot use {setting}: {each}: workers of {taken} GPUs ({tp}) take "
            f"{each * taken} of a node's {gpus}: "
            + (f"use at most {most}, or lower {tp}" if most else f"lower {tp}")
        )


def devices(ctx: Context, taken: int) -> str | None:
    """CUDA_VISIBLE_DEVICES of a worker that shares its node: the `taken` GPUs of its own, side by side.

    None where it has all of the node's, or all that somebody gave the container.
    """
    if here(ctx) == 1:
        return None
    given = [word.strip() for word in ctx.native.get(DEVICES, "").split(",") if word.strip()]
    gpus = given or [str(index) for index in range(ctx.settings.gpus_per_node)]
    first = ctx.placement.slot * taken
    return ",".join(gpus[first : first + taken])


def sglang_port(ctx: Context) -> int | None:
    """SGLang's --port of a node's further worker, which nobody asks; None: its default."""
    return SGLANG_PORT + SGLANG_PORTS * ctx.placement.slot if ctx.placement.slot else None


def runners_ports(ctx: Context) -> Mapping[str, tuple[int, ...]]:
    """By Dynamo's component, the health ports of a node's further workers."""
    if ctx.placement.job is None:
        return {}
    from entrypoint.node.job_ports import shift

    topology = ctx.placement.job.topology
    first = ctx.settings.health_port - shift(ctx.placement.slot)
    counts = {"prefill": topology.prefill_workers_per_node, "backend": topology.decode_workers_per_node}
    return {
        component: tuple(first + shift(slot) for slot in range(1, count))
        for component, count in counts.items()
        if count > 1
    }


def check_ports(node: Node, topology: Topology, ports: Sequence[Endpoint]) -> Iterator[Diagnostic]:
    """What of this container's `ports` a neighbour on the node binds, or would have to bind."""
    from entrypoint.node.job_ports import shift

    places = topology.places(node.name)
    own = [port for port in ports if port.name in MOVED_BY_JOB]
    if len(places) == 1:
        return
    for port in own:
        if port.setting != MOVED_BY_JOB[port.name]:
            yield problem(
                f"cannot use {port.setting}: {port.number}: all {len(places)} workers of {node.name} would "
                "bind it: leave it out"
            )
    movable = [port for port in own if port.setting == MOVED_BY_JOB[port.name]]
    for other in places[: node.slot] + places[node.slot + 1 :]:
        for port in movable:
            there = replace(port, number=port.number - shift(node.slot) + shift(other.slot))
            if there.number > 65535:
                yield problem(
                    f"cannot use {port.setting}: {port.number - shift(node.slot)}: {other.label} on the same "
                    f"node would have {there.number}: give a lower one"
                )
            for mine in ports:
                if mine.clashes(there):
                    yield problem(
                        f"cannot use port {there.number} twice on {node.name}: {mine.setting} "
                        f"({mine.process}) and {there.setting} of {other.label}: change one of them"
                    )
