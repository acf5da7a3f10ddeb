"""Plans made by hand: small processes in place of servers and engines."""

from __future__ import annotations

from typing import Any

from entrypoint.plan.types import AliveProbe, Criticality, Endpoint, Gate, Plan, Process


def process(name: str = "engine", **fields: Any) -> Process:
    """A process with harmless defaults."""
    defaults: dict[str, Any] = {
        "argv": ("sleep", "1000"),
        "ready": AliveProbe(0.0),
        "grace": 5.0,
    }
    return Process(name=name, **(defaults | fields))


def server(name: str = "server", **fields: Any) -> Process:
    """A process that is restarted in place."""
    return process(name, criticality=Criticality.RESTART, **fields)


def plan(
    *processes: Process, gates: tuple[Gate, ...] = (), ports: tuple[Endpoint, ...] = (), **fields: Any
) -> Plan:
    """A plan around `processes`; `ports`: theirs, beside the health endpoint's."""
    defaults: dict[str, Any] = {
        "roles": tuple(p.name for p in processes),
        "processes": processes,
        "gates": gates,
        "file_edits": (),
        "ports": (Endpoint("health", fields.pop("health_port", 0), "127.0.0.1", "health"), *ports),
        "settings": {},
        "warnings": (),
        "notes": (),
        "model_source": "/model",
        "model_path": "/model",
        "served_model_name": "glm-4.7",
        "run_dir": "/nonexistent",
        "log_dir": None,
        "log_format": "text",
        "stop_timeout": 10.0,
        "max_restarts": 3,
        "termination_log": None,
    }
    return Plan(**(defaults | fields))
