"""Runners with engines made by hand, whose pages are looked at. The engines are doubles: shells that say what
SGLang says while it starts; the runners and what they make of it are the real ones."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from entrypoint.plan.types import HttpProbe, JobPlan, Peer, Plan, Process
from tests.support.plans import plan, process
from tests.support.runner import Runner, free_port

SAYS = {
    "distributed": "Init torch distributed begin.",
    "weights": "Load weight begin. avail mem=180.10 GB\n"
    "Loading safetensors checkpoint shards:  42% Completed | 17/41 [00:40<00:55,  2.31s/it]",
    "kv_cache": "KV Cache is allocated. #tokens: 612345, K size: 40.10 GB, V size: 40.10 GB",
    "capture": "Capture cuda graph begin. This can take up to several minutes. avail mem=30.02 GB\n"
    "Capturing batches (bs=256 avail_mem=38.51 GB):  14%|#4        | 5/36 [00:31<03:10,  6.10s/it]",
}
"""Lines of SGLang 0.5.6 for each phase."""
NEVER = HttpProbe("http://127.0.0.1:1/")


def engine(name: str, phase: str | None, **fields: Any) -> Process:
    """A double of an engine: says the lines of `phase`, and is never ready; ready at once for None."""
    text = "decode batch, #running-req: 3" if phase is None else SAYS[phase]
    lines = [f"[2026-11-29 02:13:{n:02} TP{n % 4}] {line}" for n, line in enumerate(text.split("\n"))]
    script = "".join(f"echo {json.dumps(line)}; " for line in lines) + "exec sleep 1000"
    more: dict[str, Any] = {} if phase is None else {"ready": NEVER, "log_dialect": "sglang"}
    return process(name, argv=("bash", "-c", script), **(more | fields))


def job(names: Sequence[str], holds: Sequence[str], ports: Sequence[int], index: int) -> JobPlan:
    """A node of a job whose runners share one machine."""
    others = tuple(
        Peer(name, what, f"http://127.0.0.1:{port}", watched=False)
        for name, what, port in zip(names, holds, ports, strict=True)
        if name != names[index]
    )
    return JobPlan(
        number=1, node=names[index], what=holds[index], head=index == 0, api_url="", peers=(),
        peer_timeout=60.0, stops_after={}, stop_hold=0.0, log_names={}, others=others if index == 0 else (),
    )  # fmt: skip


class Job:
    """Runners of a whole job; the first is the head."""

    def __init__(
        self, tmp_path: Path, nodes: Sequence[tuple[str, str, tuple[Process, ...]]], **fields: Any
    ) -> None:
        """`nodes`: name, what it holds, its processes. `fields`: of every plan."""
        self._tmp_path, self._stack = tmp_path, ExitStack()
        names, holds = [n[0] for n in nodes], [n[1] for n in nodes]
        ports = [free_port() for _ in nodes]
        self.plans: list[Plan] = []
        for index, (name, what, processes) in enumerate(nodes):
            rank = int(what.rpartition(" ")[2])
            made = plan(
                *processes, health_port=ports[index], rank=rank, nnodes=2,
                job=job(names, holds, ports, index),
                cache_dir=str(tmp_path / name / "cache"), **fields,
            )  # fmt: skip
            self.plans.append(made)
        self.runners: list[Runner] = []

    def __enter__(self) -> Job:
        for made in self.plans:
            assert made.job is not None
            place = self._tmp_path / made.job.node
            place.mkdir(exist_ok=True)
            self.runners.append(self._stack.enter_context(Runner.of_plan(made, place)))
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """The head's page."""
        return f"http://127.0.0.1:{self.runners[0].health_port}/"


def earlier(made: Plan, **phases: float) -> None:
    """Three starts of the same container before this one: `phases` in seconds, and 20 s besides."""
    from entrypoint.supervise.status import starts

    path = starts.file_of(made)
    assert path is not None
    path.parent.mkdir(parents=True)
    whole = sum(phases.values()) + 20
    path.write_text(json.dumps([{"ready": whole + n, "phases": phases} for n in (0, 5, 90)]))


class Double:
    """A double of a node that is not there: it answers `/view` with what was made of a real runner's."""

    def __init__(self, view: dict[str, Any]) -> None:
        self.view = view
        double = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(double.view).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing of this is news."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Nobody listens there any more."""
        self._server.shutdown()
        self._server.server_close()


def served(status: dict[str, Any], name: str, **changes: Any) -> dict[str, Any]:
    """The view of a node that serves, made of a real one's `status`; `changes`: of its engine."""
    process = {**status["processes"][0], "name": name, "role": name, "ready": True, "state": "running",
               "pid": 4711, "age": 4230.0, "restarts": 0, "why": None, "phase": "registered",
               "progress": None, "requests_in_flight": 12, **changes}  # fmt: skip
    whole = {**status, "roles": [name], "state": "ready", "ready": True, "started": True, "uptime": 4260.0,
             "reason": None, "waiting_for": [], "processes": [process]}  # fmt: skip
    return {
        "status": whole, "seen": "answers",
        "lines": {name: ["Decode batch, #running-req: 12, gen throughput (token/s): 812.4"]},
        "logs": {}, "starts": [1212.0], "remaining": None, "in_flight": None, "tokens_per_second": None,
    }  # fmt: skip
