"""What the nodes of a Slurm job leave in its log directory, for the batch script and for people.

`plan.json`, `status.json` and, once everything is ready, `url` come from the head node; `failure` from
whichever node knows the first cause of a failed end. The second line of `status.json` is the job's own: the
batch script writes there how the job ended, since the head's runner may have been killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from entrypoint.base.files import replace_file
from entrypoint.errors import ExitCode
from entrypoint.plan.types import Peer, Plan, to_jsonable
from entrypoint.supervise.output.lines import stamp
from entrypoint.supervise.status import client

INTERVAL = 1.0
"""Seconds between two looks at the status."""
AT_LEAST_EVERY = 30.0
"""Seconds between two writes of it when nothing has changed."""
OTHERS_EVERY = 5.0
"""Seconds between two questions to the other nodes."""
PATIENCE = 2.0
"""Seconds that their answers may take."""
THREADS = 16
"""Nodes asked at once."""
LONGEST_STOP = 86400.0
"""Seconds; what says more is no budget."""
NODE = (
    "state",
    "ready",
    "started",
    "roles",
    "rank",
    "nnodes",
    "uptime",
    "reason",
    "exit_code",
    "waiting_for",
)
PROCESS = (
    "name",
    "state",
    "ready",
    "why",
    "pid",
    "age",
    "restarts",
    "exit_code",
    "phase",
    "progress",
    "stuck",
)
"""What is kept of a node, and of each of its processes."""


class JobFiles:
    """Keeps the head's files up to date in a thread of its own; does nothing on other nodes."""

    def __init__(self, plan: Plan, status: Callable[[], Mapping[str, Any]]) -> None:
        self._plan, self._status = plan, status
        self._directory = Path(plan.log_dir) if plan.log_dir is not None else None
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._nodes: dict[str, dict[str, Any]] = {}
        """Of each other node, what it said last."""

    def start(self) -> None:
        """Write `plan.json`, and begin to follow the status."""
        if self._directory is None or self._plan.job is None or not self._plan.job.head:
            return
        write(self._directory / "plan.json", json.dumps(to_jsonable(self._plan), indent=2) + "\n")
        threading.Thread(target=self._follow, name="job-files", daemon=True).start()

    def close(self) -> None:
        """Write the last status: that of a job that is over."""
        self._over.set()
        if self._directory is not None and self._plan.job is not None and self._plan.job.head:
            self._ask_others()
            self._write_status(dict(self._status()), over=True)

    def _follow(self) -> None:
        shown: object = None
        written = asked = 0.0
        was_everywhere = False
        while not self._over.wait(INTERVAL):
            status = dict(self._status())
            # A node whose runner has not answered yet may hold what a request needs.
            everywhere = status["ready"] and not status["waiting_for"]
            if everywhere is not was_everywhere or time.monotonic() >= asked + OTHERS_EVERY:
                self._ask_others()
                asked, was_everywhere = time.monotonic(), everywhere
            seen = (_signs(status), everywhere, [(n, _signs(node)) for n, node in self._nodes.items()])
            if seen == shown and time.monotonic() < written + AT_LEAST_EVERY:
                continue
            shown, written = seen, time.monotonic()
            self._write_status(status)
            job = self._plan.job
            if everywhere and self._directory is not None and job is not None and job.api_url:
                write(self._directory / "url", job.api_url + "\n")

    def _ask_others(self) -> None:
        others = self._plan.job.others if self._plan.job is not None else ()
        if others:
            with ThreadPoolExecutor(min(THREADS, len(others)), thread_name_prefix="job-files") as pool:
                self._nodes = dict(zip((o.name for o in others), pool.map(self._ask, others), strict=True))

    def _ask(self, peer: Peer) -> dict[str, Any]:
        try:
            status = client.get_status(peer.url, PATIENCE, self._plan.status_token)
        except OSError as error:
            last = self._nodes.get(peer.name, {"holds": peer.what, "at": None})
            return last | {"answers": False, "why": client.why(error)}
        return {"holds": peer.what, "answers": True, "at": stamp(time.time()), **_of_node(status)}

    def _write_status(self, status: Mapping[str, Any], over: bool = False) -> None:
        job = self._plan.job
        assert self._directory is not None and job is not None
        with self._lock:
            if self._over.is_set() and not over:
                return  # the last one is written
            now = stamp(time.time())
            code, reason = (status.get("exit_code"), status.get("reason")) if over else (None, None)
            told = {"number": job.number, "state": "ended" if over else "running", "time": now}
            own = {"holds": job.what, "answers": not over, "at": now, **_of_node(status)}
            if over:
                status = {**status, "state": "ended", "ready": False}
                own["state"] = "ended"
            whole = json.dumps({**status, "time": now, "nodes": {job.node: own, **self._nodes}}, indent=2)
            line = json.dumps({**told, "code": code, "reason": reason})
            write(self._directory / "status.json", f'{{\n  "job": {line},{whole[1:]}\n')


def _of_node(status: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of what a node says of itself."""
    kept = {name: status.get(name) for name in NODE}
    return kept | {"processes": [{k: p.get(k) for k in PROCESS} for p in status.get("processes", ())]}


def _signs(status: Mapping[str, Any]) -> object:
    """What must change for the file to be written before its time."""
    processes = [(p["name"], p["state"], p["ready"]) for p in status.get("processes", ())]
    return processes, status.get("state"), status.get("answers")


def write(path: Path, text: str) -> None:
    """Replace a file at once; what cannot be written is left out, since nothing depends on it."""
    with contextlib.suppress(OSError):
        replace_file(path, text.encode())


def job_code(code: int, nnodes: int) -> int:
    """The job's exit code for a runner that ended with `code`.

    A rank of a worker of several nodes that a signal ended is a lost rank (76) to the job, as it is to all
    its peers; other codes say more than that.
    """
    return ExitCode.PEER_LOST if nnodes > 1 and code > 128 else code


def stop_budget(plan: Plan) -> float | None:
    """Seconds that the batch script, signalled before the job's end, leaves for a stop; None: it says none.

    It writes them before it asks the runners to stop. Never asked before: what a shared file system does not
    have, it may remember for a while.
    """
    if plan.log_dir is None:
        return None
    try:
        found = float(Path(plan.log_dir, "stop_seconds").read_text())
    except (OSError, ValueError):
        return None
    return found if plan.stop_timeout < found < LONGEST_STOP else None


def record_failure(directory: str, code: int, reason: str) -> None:
    """Write ``<code> <reason>`` and the time to `failure`, unless a node that knew earlier has done so."""
    line = f"{code} {' '.join(reason.splitlines())}\n{stamp(time.time())}\n"
    path = Path(directory, "failure")
    temporary = path.with_name(f".failure.{secrets.token_hex(8)}")
    with contextlib.suppress(OSError):
        temporary.write_text(line)
        try:
            # A hard link appears whole and never replaces one, on every shared file system.
            os.link(temporary, path)
        finally:
            temporary.unlink()
