"""What a Slurm job says of itself, and what follows from it for this node's settings. Pure.

Read: SLURM_JOB_ID, SLURM_JOB_NODELIST, SLURM_STEP_NODELIST, SLURM_STEP_ID, SLURMD_NODENAME, SLURM_NODEID,
SLURM_LOCALID, SLURM_STEP_TASKS_PER_NODE, SLURM_RESTART_COUNT.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from entrypoint.errors import ConfigError, SpareTaskError
from entrypoint.node import nodelist
from entrypoint.node.job_ports import OF_WORKERS, SLOTS, job_ports, shift
from entrypoint.node.topology import Node, Topology, lay_out
from entrypoint.settings.origin import Origin
from entrypoint.settings.schema import Settings, variable_of

GATE_MARGIN = 30.0
"""Seconds that the wait for the head's servers exceeds the wait for its runner, which can name the node."""
FIRST_SPECIAL_STEP = 0xFFFFFFF0
"""Numbers from here on are Slurm's own steps: a job's batch script, an interactive shell, an extern step."""
WORKED_OUT = ("nnodes", "node_rank", "leader_address")
"""Settings that a job's nodes get from the topology, and that nobody may give besides."""


@dataclass(frozen=True)
class Job:
    """A job and this node's place in it."""

    number: int | None
    topology: Topology
    node: Node
    nodes_from: str = "SLURM_JOB_NODELIST"
    """The variable that named the nodes."""
    unmet: tuple[str, ...] = ()
    """Why this step cannot start the whole deployment."""


def nodelist_variable(environ: Mapping[str, str]) -> str:
    """The variable with the nodes that this deployment has: its step's, where `srun` was given fewer."""
    step = environ.get("SLURM_STEP_ID", "0")
    special = step.isascii() and step.isdigit() and int(step) >= FIRST_SPECIAL_STEP
    return (
        "SLURM_STEP_NODELIST" if environ.get("SLURM_STEP_NODELIST") and not special else "SLURM_JOB_NODELIST"
    )


def applies(environ: Mapping[str, str], settings: Settings) -> bool:
    """Whether ROLE=auto means a Slurm job here: in a task or a batch script, not in `salloc`'s shell."""
    return (
        settings.role == "auto"
        and "SLURM_JOB_NODELIST" in environ
        and ("SLURM_NODEID" in environ or "SLURM_PROCID" in environ)
    )


def job_number(environ: Mapping[str, str]) -> int | None:
    """The job's number; None for a node list that nobody numbered (a step made by hand)."""
    return _number(environ, "SLURM_JOB_ID") if "SLURM_JOB_ID" in environ else None


def shared_values(environ: Mapping[str, str], settings: Settings) -> dict[str, Any]:
    """Settings that the job decides: those that nobody gave, and what each worker of a node has for itself.

    Ports of its own and a directory of its own for the job. Of several workers on a node the first has
    these, and each further one its ports above them (`job_ports.shift`) and its directory below.
    """
    given = settings.model_fields_set
    values: dict[str, Any] = {"server_timeout": settings.start_timeout + GATE_MARGIN}
    if (number := job_number(environ)) is not None:
        restarts = _number(environ, "SLURM_RESTART_COUNT") if "SLURM_RESTART_COUNT" in environ else 0
        # A requeued job keeps its number; what etcd and NATS stored before must not come back.
        again = f".{restarts}" if restarts else ""
        values |= {**job_ports(number), "run_dir": f"{settings.run_dir}-{number}{again}"}
    values = {name: value for name, value in values.items() if name not in given}
    if slot := min(_slot(environ), SLOTS - 1):
        for name in OF_WORKERS:
            values[name] = values.get(name, getattr(settings, name)) + shift(slot)
        values["run_dir"] = f"{values.get('run_dir', settings.run_dir)}/worker-{slot}"
    return values


def job_of(environ: Mapping[str, str], settings: Settings) -> Job:
    """The job that `environ` describes, laid out. ConfigError says what does not fit."""
    variable = nodelist_variable(environ)
    text = environ.get(variable, "")
    try:
        names = nodelist.expand(text)
    except ValueError as error:
        raise ConfigError(f"cannot read {variable}: {text}: {error}: pass it on as Slurm set it") from None
    if given := [variable_of(name) for name in WORKED_OUT if name in settings.model_fields_set]:
        raise ConfigError(
            f"cannot use {', '.join(given)} with ROLE=auto: Slurm's node list decides it: "
            "unset it, or give ROLE"
        )
    topology = lay_out(
        names,
        prefill_workers=settings.prefill_workers,
        prefill_nodes=settings.prefill_nodes,
        decode_workers=settings.decode_workers,
        decode_nodes=settings.decode_nodes,
        frontends=settings.frontends,
        nginx=settings.nginx,
        nvlink_domain_size=settings.nvlink_domain_size,
        nvlink_size_given="nvlink_domain_size" in settings.model_fields_set,
        nvlink_domains=settings.nvlink_domains,
        gpus_per_node=settings.gpus_per_node,
        prefill_workers_per_node=settings.prefill_workers_per_node,
        decode_workers_per_node=settings.decode_workers_per_node,
    )
    node = _own_place(_own_node(environ, topology, variable), _slot(environ), topology)
    return Job(job_number(environ), topology, node, variable, _too_few_tasks(environ, topology))


def with_values(
    settings: Settings, origins: Mapping[str, Origin], values: Mapping[str, Any], origin: str
) -> tuple[Settings, dict[str, Origin]]:
    """`settings` and `origins` with `values` in them, as if somebody had given them."""
    changed = settings.model_copy(update=dict(values))
    found = dict(origins)
    for name, value in values.items():
        variable = variable_of(name)
        if found.get(variable) is None or found[variable].value != value:
            found[variable] = Origin(value, origin)
    return changed, found


def roles_of(job: Job) -> tuple[str, ...]:
    """The roles of this node's container; one node with one worker needs no etcd: `single`."""
    if len(job.topology.nodes) == 1 and not job.topology.nginx:
        return ("single",)
    return (*job.node.servers, job.node.role)


def neighbours(job: Job) -> tuple[Node, ...]:
    """The places whose runners this one watches.

    The head and the leaders of the workers watch each other, a leader and its followers do: whatever ends
    is known everywhere after two steps, and no node asks more than it must.
    """
    node, topology = job.node, job.topology
    watched: dict[str, Node] = {}
    if node.rank == 0:
        watched = {other.id: other for other in topology.worker_of(node) if other.rank > 0}
        watched[topology.head.id] = topology.head
    else:
        watched[node.leader] = topology.node(node.leader)
    if node is topology.head:
        watched |= {other.id: other for other in topology.nodes if other.rank == 0}
    watched.pop(node.id, None)
    return tuple(sorted(watched.values(), key=lambda other: (other.index, other.slot)))


def stops_after(job: Job, process: str) -> tuple[tuple[str, str], ...]:
    """(node, process) pairs elsewhere that a stop waits for before it stops `process` here.

    Answers under way pass through nginx, a frontend and every rank of a worker, so a stop of the whole job
    goes in that order over all nodes.
    """
    node, topology = job.node, job.topology
    if process == node.role:
        if node.rank > 0:
            return ((node.leader, node.role),)
        return tuple((name, "frontend") for name in topology.frontends if name != node.id)
    if process == "frontend" and topology.nginx and node is not topology.head:
        return ((topology.head.name, "nginx"),)
    return ()


def log_names(job: Job, processes: tuple[str, ...]) -> dict[str, str]:
    """The log file of each process, without its suffix: ``<node>_<role>_w<i>``, ``<node>_<server>``.

    The runner of a node's further worker has ``<node>_runner_w<i>``.
    """
    node = job.node
    return {
        name: f"{node.name}_{name}" + (f"_w{node.worker}" if name == node.role or node.slot else "")
        for name in (*processes, "runner")
    }


def _own_node(environ: Mapping[str, str], topology: Topology, variable: str) -> str:
    name, names = environ.get("SLURMD_NODENAME", ""), topology.names
    if name in names:
        return name
    index = _number(environ, "SLURM_NODEID" if "SLURM_NODEID" in environ else "SLURM_PROCID")
    if index >= len(names):
        raise ConfigError(
            f"cannot use SLURM_NODEID: {index}: {variable} has {len(names)} nodes: "
            "pass both on as Slurm set them"
        )
    return names[index]


def _own_place(name: str, slot: int, topology: Topology) -> Node:
    """The place of task `slot` of the node called `name`. SpareTaskError where others have more workers."""
    places = topology.places(name)
    most = max(topology.prefill_workers_per_node, topology.decode_workers_per_node)
    if slot < len(places):
        return places[slot]
    if slot < most:
        # Not in the voice of errors: who looks for one in the job's logs must not find this.
        text = f"nothing to do: {name} has {len(places)} of up to {most} workers: task {slot} is left over"
        raise SpareTaskError(text)
    raise ConfigError(
        f"cannot start another runner on this node: SLURM_LOCALID={slot}: the layout has "
        f"{'one worker' if most == 1 else f'at most {most} workers'} on a node: "
        f"use srun --ntasks-per-node={most}"
    )


def _too_few_tasks(environ: Mapping[str, str], topology: Topology) -> tuple[str, ...]:
    """A runner is one task, so a node's further workers need further tasks."""
    text, most = environ.get("SLURM_STEP_TASKS_PER_NODE", ""), topology.most_on_a_node
    counts = [int(count) for count in re.findall(r"(?:^|,)(\d+)", text)]
    if not counts or min(counts) >= most:
        return ()
    return (
        f"cannot start {most} workers on a node: SLURM_STEP_TASKS_PER_NODE={text}: each is a task of its "
        f"own: use srun --ntasks-per-node={most}",
    )


def _slot(environ: Mapping[str, str]) -> int:
    return _number(environ, "SLURM_LOCALID") if "SLURM_LOCALID" in environ else 0


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "")
    if not (text.isascii() and text.isdigit()):
        raise ConfigError(f"cannot use {name}: {text}: it is no number: pass it on as Slurm set it")
    return int(text)
