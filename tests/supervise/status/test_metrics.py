"""/metrics is read by prometheus-client's own parsers, in both formats, whatever the status says."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text_format

from entrypoint.plan.types import HttpProbe
from entrypoint.supervise.lifecycle.states import State
from entrypoint.supervise.status import metrics
from tests.support.plans import plan, process, server
from tests.support.runner import ROOT, Runner, until

ACCEPT = {
    "text": "text/plain;version=0.0.4",
    "OpenMetrics": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
    "anything": "*/*",
}
WORDS = st.text(min_size=1, max_size=12) | st.sampled_from(["decode", 'a"b', "a\\b", "a\nb", "{x}", "#"])
NUMBERS = st.integers(0, 10**12) | st.floats(0, 1e12)
PROCESS = st.fixed_dictionaries(
    {
        "name": WORDS, "role": WORDS, "state": st.sampled_from([state.value for state in State]),
        "ready": st.booleans(), "age": st.none() | NUMBERS, "restarts": st.integers(0, 99),
        "stuck_seconds": NUMBERS, "requests_in_flight": st.none() | NUMBERS,
    },
    optional={
        "phase": st.none() | WORDS, "phase_seconds": st.dictionaries(WORDS, NUMBERS, max_size=3),
        "hangs": st.integers(0, 9), "output_lines": NUMBERS, "output_bytes": NUMBERS,
        "dropped_lines": NUMBERS,
    },
)  # fmt: skip
GATE = st.fixed_dictionaries({"name": WORDS, "ready": st.booleans()})
SNAPSHOT = st.fixed_dictionaries(
    {
        "version": WORDS, "state": WORDS, "ready": st.booleans(), "roles": st.lists(WORDS, max_size=3),
        "rank": st.integers(0, 99), "nnodes": st.integers(1, 99), "node": st.none() | WORDS, "model": WORDS,
        "uptime": NUMBERS, "reason": st.none() | WORDS, "exit_code": st.none() | st.integers(0, 255),
        "waiting_for": st.lists(WORDS, max_size=2),
        "processes": st.lists(PROCESS, max_size=4, unique_by=lambda p: str(p["name"])),
        "gates": st.lists(GATE, max_size=2, unique_by=lambda gate: gate["name"]),
        "probes": st.dictionaries(
            WORDS, st.fixed_dictionaries({"count": st.integers(0, 9), "seconds": NUMBERS}), max_size=3
        ),
    }
)  # fmt: skip


def parsed(body: str, kind: str) -> Iterator[Metric]:
    """What the parser for this content type reads."""
    read: Callable[[str], Iterable[Metric]] = text_format
    if kind.startswith("application/openmetrics-text"):
        read = openmetrics
    return iter(read(body))


def samples(body: str, kind: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by name and labels."""
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for m in parsed(body, kind) for s in m.samples}


def test_the_documented_metrics_are_those_of_the_page() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    documented = set(re.findall(r"`(glm47_\w+)`", page))
    status = {
        "version": "", "state": "", "ready": True, "roles": [], "rank": 0, "nnodes": 1, "node": None,
        "model": "", "uptime": 0, "reason": None, "exit_code": None, "waiting_for": [], "processes": [],
        "gates": [], "probes": {},
    }  # fmt: skip
    suffix = {"counter": "_total", "info": "_info"}
    assert documented == {m.name + suffix.get(m.type, "") for m in metrics.metrics(status, 0.0)}


@given(SNAPSHOT, st.sampled_from([*ACCEPT.values()]))
def test_whatever_the_status_is_the_parser_reads_it_back(snapshot: dict[str, Any], accept: str) -> None:
    body, kind = metrics.page(snapshot, 0.0, accept)
    found = samples(body.decode(), kind)
    assert found["glm47_ready", ()] == snapshot["ready"]
    for p in snapshot["processes"]:
        own = tuple(sorted({"process": p["name"], "role": p["role"]}.items()))
        assert found["glm47_process_ready", own] == p["ready"]
        assert found["glm47_process_up", own] == (p["state"] == State.RUNNING.value)
        assert found["glm47_process_restarts_total", own] == p["restarts"]
        told = p["requests_in_flight"]
        assert found.get(("glm47_process_requests_in_flight", own)) == told
    for probe, asked in snapshot["probes"].items():
        assert found["glm47_probe_duration_seconds_count", (("probe", probe),)] == asked["count"]


@pytest.mark.parametrize("accept", ACCEPT.values(), ids=ACCEPT.keys())
def test_a_runner_s_page(accept: str, tmp_path: Path) -> None:
    p = plan(process("engine", ready=HttpProbe("http://127.0.0.1:1/")), server("etcd"))
    with Runner.of_plan(p, tmp_path) as runner:
        runner.wait_for("etcd is ready")
        until(
            lambda: runner.get("/status")[1]["probes"].get("engine", {}).get("count"), "a probe has answered"
        )
        url = f"http://127.0.0.1:{runner.health_port}/metrics"
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept})) as answer:
            body, kind = answer.read().decode(), answer.headers["Content-Type"]
    assert kind.startswith("application/openmetrics-text" if "openmetrics" in accept else "text/plain")
    found = samples(body, kind)
    assert found["glm47_ready", ()] == 0
    assert found["glm47_process_ready", (("process", "etcd"), ("role", "etcd"))] == 1
    assert found["glm47_process_ready", (("process", "engine"), ("role", "engine"))] == 0
    assert found["glm47_probe_duration_seconds_count", (("probe", "engine"),)] > 0
