"""What the outside is told of a run: one JSON object, and what follows from it. Pure."""

from __future__ import annotations

import dataclasses
from typing import Any

from entrypoint import __version__
from entrypoint.plan import Plan
from entrypoint.supervise.director import Director
from entrypoint.supervise.states import Proc, State

LOOP_LIMIT = 10.0
"""Seconds without a turn of the supervisor's loop before it counts as hung."""


def status(director: Director, now: float, extra: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The state of every process and of the whole. `extra` adds fields per process (progress, output).

    Ages and durations are seconds.
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
        "warnings": list(plan.warnings),
    }


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
        "role": proc.spec.role,
        "state": proc.state.value,
        "ready": proc.ready,
        "why": (f"waits for {', '.join(needs)}" if needs else proc.why) or None,
        "pid": proc.pid,
        "age": round(now - proc.spawned_at, 1) if proc.alive and proc.spawned_at else None,
        "restarts": proc.restarts_total,
        "exit_code": proc.exit_code,
        "stuck": str(proc.stuck) if proc.stuck is not None else None,
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


PROCESS_METRICS = (
    ("glm47_process_up", "gauge", "1 while the process runs", "up"),
    ("glm47_process_ready", "gauge", "1 while the process is ready", "ready"),
    ("glm47_process_restarts_total", "counter", "Restarts in place", "restarts"),
    ("glm47_process_age_seconds", "gauge", "Seconds since its start", "age"),
    (
        "glm47_process_stuck_seconds",
        "gauge",
        "Seconds that it has not got on, once it is not ready for that",
        "stuck_seconds",
    ),
    (
        "glm47_process_requests_in_flight",
        "gauge",
        "Requests in flight that a worker tells of",
        "requests_in_flight",
    ),
    ("glm47_output_dropped_lines_total", "counter", "Lines not forwarded", "dropped_lines"),
    ("glm47_output_bytes_total", "counter", "Bytes of output read", "output_bytes"),
)
"""Name, kind, help and the field of the status object."""


def metrics(snapshot: dict[str, Any], turned: float) -> str:
    """The same in Prometheus' text format."""
    live, _ = live_probe(snapshot, turned)
    lines = [
        *_metric("glm47_ready", "gauge", "1 when every process is ready", [("", int(snapshot["ready"]))]),
        *_metric("glm47_live", "gauge", "1 unless hung or lost", [("", int(live))]),
        *_metric("glm47_uptime_seconds", "counter", "Seconds since the start", [("", snapshot["uptime"])]),
    ]
    processes = snapshot["processes"]
    for name, kind, text, key in PROCESS_METRICS:
        rows = [(f'{{process="{p["name"]}",role="{p["role"]}"}}', _number(p, key)) for p in processes]
        lines += _metric(name, kind, text, rows)
    phases = [(f'{{process="{p["name"]}",phase="{p["phase"]}"}}', 1) for p in processes if p.get("phase")]
    lines += _metric("glm47_process_phase", "gauge", "What the process is doing", phases)
    return "\n".join(lines) + "\n"


def _number(process: dict[str, Any], key: str) -> float:
    if key == "up":
        return int(process["state"] == State.RUNNING.value)
    return process.get(key) or 0


def _metric(name: str, kind: str, text: str, rows: list[tuple[str, Any]]) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *(f"{name}{labels} {v}" for labels, v in rows)]


def describe(plan: Plan) -> str:
    """The first line of a run: what this container is."""
    rank = f", rank {plan.rank} of {plan.nnodes}" if plan.nnodes > 1 else ""
    names = ", ".join(p.name for p in plan.processes)
    return f"glm47-runner {__version__}: {'+'.join(plan.roles)}{rank}; processes: {names}"
