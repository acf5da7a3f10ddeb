"""What the outside is told of a run: one JSON object, and what follows from it. Pure."""

from __future__ import annotations

import dataclasses
from typing import Any

from entrypoint import __version__
from entrypoint.plan.types import Plan
from entrypoint.supervise.lifecycle.director import Director
from entrypoint.supervise.lifecycle.process import Proc
from entrypoint.supervise.lifecycle.states import State

LOOP_LIMIT = 10.0
"""Seconds without a turn of the supervisor's loop before it counts as hung."""


def status(
    director: Director, now: float, extra: dict[str, dict[str, Any]], probes: dict[str, dict[str, float]]
) -> dict[str, Any]:
    """The state of every process and of the whole. `extra` adds fields per process (progress, output).

    `probes`: how often each probe was asked, and for how long. Ages and durations are seconds.
    """
    plan = director.plan
    verdict = director.verdict
    return {
        "version": __version__,
        "state": overall(director),
        "ready": director.ready,
        "started": director.was_ready,
        "roles": list(plan.roles),
        "rank": plan.rank,
        "nnodes": plan.nnodes,
        "layouts": [dataclasses.asdict(layout) for layout in plan.layouts],
        "node": plan.job.node if plan.job is not None else None,
        "model": plan.served_model_name,
        "uptime": round(now - director.started_at, 1),
        "reason": verdict.reason if verdict else None,
        "exit_code": verdict.code if verdict else None,
        "waiting_for": waiting_for(director),
        "processes": [_process(p, director, now) | extra.get(n, {}) for n, p in director.procs.items()],
        "gates": [
            {"name": g.spec.name, "ready": g.open, "why": g.why or None} for g in director.gates.values()
        ],
        "clocks": _clocks(director),
        "probes": probes,
        "warnings": list(plan.warnings),
    }


def _clocks(director: Director) -> dict[str, dict[str, float]]:
    """How far the peers' clocks are ahead of ours, and how long asking took: seconds, by node."""
    found = director.watch.clocks() if director.watch is not None else {}
    return {n: {"offset": round(c.offset, 4), "round_trip": round(c.round_trip, 4)} for n, c in found.items()}


def overall(director: Director) -> str:
    """One word for the whole container."""
    if director.stopping is not None:
        return "stopping"
    if director.ready:
        return "ready"
    return "degraded" if director.was_ready else "starting"


def waiting_for(director: Director) -> list[str]:
    """What keeps this container from being ready, one line each, causes before consequences."""
    if director.stopping is not None:
        return [f"{n} to leave" for n, p in director.procs.items() if p.alive]
    lines = [f"{g.spec.name}: {g.why}" for g in director.gates.values() if not g.open]
    running = [p for p in director.procs.values() if not p.ready and p.state is not State.WAITING]
    lines += [f"{p.spec.name}: {p.phase or p.why}" for p in running]
    if director.watch is not None:
        lines += [f"the runner on {missing}" for missing in director.watch.missing()]
    if not lines:
        lines = [f"{n}: {p.why}" for n, p in director.procs.items() if not p.ready]
    return lines


def _process(proc: Proc, director: Director, now: float) -> dict[str, Any]:
    needs = director.wants(proc.spec.name) if proc.state is State.WAITING else []
    return {
        "name": proc.spec.name,
        "role": proc.spec.name,
        "state": proc.state.value,
        "ready": proc.ready,
        "why": (f"waits for {', '.join(needs)}" if needs else proc.why) or None,
        "pid": proc.pid,
        "age": round(now - proc.spawned_at, 1) if proc.alive and proc.spawned_at else None,
        "restarts": proc.restarts_total,
        "exit_code": proc.exit_code,
        "stuck": str(proc.stuck) if proc.stuck is not None else None,
        "hangs": proc.hangs,
        "stuck_seconds": proc.stuck.seconds if proc.stuck is not None else 0,
        "requests_in_flight": proc.requests.in_flight if proc.requests is not None else None,
    }


def startup_probe(snapshot: dict[str, Any]) -> tuple[bool, dict[str, Any]]:
    """/startupz: passed once ready has been reached."""
    return bool(snapshot["started"]), _why(snapshot)


def ready_probe(snapshot: dict[str, Any]) -> tuple[bool, dict[str, Any]]:
    """/readyz: every process of this container is ready now."""
    return bool(snapshot["ready"]), _why(snapshot)


def live_probe(snapshot: dict[str, Any], turned: float) -> tuple[bool, dict[str, Any]]:
    """/livez: the loop turned `turned` seconds ago, and nothing critical is lost or stalled.

    Slow loading never fails it: a start that stalls is ended by the runner itself.
    """
    hung = turned > LOOP_LIMIT
    why = _why(snapshot)
    if hung:
        why["reason"] = f"the supervisor's loop has not turned for {turned:.0f} s"
    return not hung and not (snapshot["exit_code"] or 0), why


def _why(snapshot: dict[str, Any]) -> dict[str, Any]:
    progress = [
        {"name": p["name"], "phase": p.get("phase"), "progress": p.get("progress")}
        for p in snapshot["processes"]
        if not p["ready"]
    ]
    return {
        "state": snapshot["state"],
        "reason": snapshot["reason"],
        "waiting_for": snapshot["waiting_for"],
        "progress": progress,
    }


def describe(plan: Plan) -> str:
    """The first line of a run: what this container is."""
    rank = f", rank {plan.rank} of {plan.nnodes}" if plan.nnodes > 1 else ""
    names = ", ".join(p.name for p in plan.processes)
    return f"glm47-runner {__version__}: {'+'.join(plan.roles)}{rank}; processes: {names}"
