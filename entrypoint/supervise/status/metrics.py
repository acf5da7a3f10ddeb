"""/metrics: the status object as Prometheus takes it, by prometheus-client. Pure.

Which format is sent follows from the request's Accept header, as with any exporter: OpenMetrics to those that
ask for it, the text format 0.0.4 to all others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from entrypoint.supervise.lifecycle.states import State
from entrypoint.supervise.status.report import live_probe

if TYPE_CHECKING:
    from prometheus_client.core import Metric

GAUGES: tuple[tuple[str, str, Callable[[dict[str, Any]], float | None]], ...] = (
    ("up", "1 while the process runs", lambda p: p["state"] == State.RUNNING.value),
    ("ready", "1 while the process is ready", lambda p: p["ready"]),
    ("age_seconds", "Seconds since the process was started", lambda p: p["age"]),
    ("stuck_seconds", "Seconds that an engine has not got on, once it is not ready for that; else 0",
     lambda p: p["stuck_seconds"]),
    ("requests_in_flight", "Requests that a worker has not answered", lambda p: p["requests_in_flight"]),
)  # fmt: skip
"""Of each process: name after `glm47_process_`, help, and its value in the status object; None: not known."""
COUNTERS = (
    ("process_restarts", "Restarts in place", "restarts"),
    ("process_hangs", "Times that an engine was found not to get on", "hangs"),
    ("output_lines", "Lines of output read", "output_lines"),
    ("output_bytes", "Bytes of output read", "output_bytes"),
    ("output_dropped_lines", "Lines of output not forwarded: their reader is slow", "dropped_lines"),
)  # fmt: skip
"""Of each process: name after `glm47_`, help, and the field of the status object."""
OWN = ("process", "role")
"""Labels of every series of a process."""


def page(snapshot: dict[str, Any], turned: float, accept: str = "") -> tuple[bytes, str]:
    """The page and its content type.

    `snapshot`: the status object. `turned`: seconds since the supervisor's loop last turned. `accept`: the
    request's header.
    """
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder

    class Collector:
        def collect(self) -> Iterator[Metric]:
            return metrics(snapshot, turned)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector())
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def metrics(snapshot: dict[str, Any], turned: float) -> Iterator[Metric]:
    """Every metric of the runner, once. `turned`: seconds since the loop turned."""
    from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

    yield InfoMetricFamily(
        "glm47_runner", "What this container is", {
            "version": snapshot["version"], "roles": ",".join(snapshot["roles"]), "state": snapshot["state"],
            "rank": str(snapshot["rank"]), "nnodes": str(snapshot["nnodes"]),
            "node": snapshot["node"] or "", "model": snapshot["model"],
        },
    )  # fmt: skip
    yield GaugeMetricFamily("glm47_ready", "1 while every process is ready", int(snapshot["ready"]))
    live, _ = live_probe(snapshot, turned)
    yield GaugeMetricFamily("glm47_live", "1 unless the runner hangs or has lost a process", int(live))
    yield GaugeMetricFamily("glm47_uptime_seconds", "Seconds since the start", snapshot["uptime"])
    yield _gates(snapshot["gates"])
    yield from _processes(snapshot["processes"])
    yield _findings(snapshot["processes"])
    yield from _starts(snapshot["processes"])
    yield _slow(snapshot.get("slow") or [])
    yield _probes(snapshot["probes"])


def _gates(gates: list[dict[str, Any]]) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(
        "glm47_gate_open", "1 once what the start waits for is there", labels=("gate",)
    )
    for gate in gates:
        family.add_metric((gate["name"],), int(gate["ready"]))
    return family


def _processes(processes: list[dict[str, Any]]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    for name, text, value in GAUGES:
        gauge = GaugeMetricFamily(f"glm47_process_{name}", text, labels=OWN)
        for process in processes:
            found = value(process)
            if found is not None:
                gauge.add_metric((process["name"], process["role"]), float(found))
        yield gauge
    for name, text, field in COUNTERS:
        counter = CounterMetricFamily(f"glm47_{name}", text, labels=OWN)
        for process in processes:
            counter.add_metric((process["name"], process["role"]), float(process.get(field) or 0))
        yield counter


def _findings(processes: list[dict[str, Any]]) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(
        "glm47_findings", "Known failures that a process wrote of while it lived", labels=(*OWN, "key")
    )
    for process in processes:
        for finding in process.get("findings") or ():
            family.add_metric((process["name"], process["role"], finding["key"]), finding["count"])
    return family


def _slow(found: list[dict[str, str]]) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(
        "glm47_slow", "1: this node is slower than the others of its role", labels=("process", "node", "step")
    )
    for each in found:
        family.add_metric((each["process"], each["node"], each["step"]), 1)
    return family


def _starts(processes: list[dict[str, Any]]) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    now = GaugeMetricFamily("glm47_process_phase", "1: what the process does", labels=(*OWN, "phase"))
    spent = GaugeMetricFamily(
        "glm47_process_phase_seconds", "Seconds that this start has spent in a phase", labels=(*OWN, "phase")
    )
    for process in processes:
        own = (process["name"], process["role"])
        if process.get("phase"):
            now.add_metric((*own, process["phase"]), 1)
        for phase, seconds in (process.get("phase_seconds") or {}).items():
            spent.add_metric((*own, phase), seconds)
    yield now
    yield spent


def _probes(probes: dict[str, dict[str, float]]) -> Metric:
    from prometheus_client.core import SummaryMetricFamily

    family = SummaryMetricFamily(
        "glm47_probe_duration_seconds", "How long the answers to readiness probes took", labels=("probe",)
    )
    for name, asked in probes.items():
        family.add_metric((name,), count_value=int(asked["count"]), sum_value=asked["seconds"])
    return family
