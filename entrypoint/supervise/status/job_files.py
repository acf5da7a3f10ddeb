"""What the nodes of a Slurm job leave in its log directory, for the batch script and for people.

`plan.json`, `status.json` and, once everything is ready, `url` come from the head node; `failure` from
whichever node knows the first cause of a failed end.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from entrypoint.errors import ExitCode
from entrypoint.files import replace_file
from entrypoint.plan.types import Plan, to_jsonable

INTERVAL = 1.0
"""Seconds between two looks at the status."""
AT_LEAST_EVERY = 30.0
"""Seconds between two writes of it when nothing has changed."""


class JobFiles:
    """Keeps the head's files up to date in a thread of its own; does nothing on other nodes."""

    def __init__(self, plan: Plan, status: Callable[[], Mapping[str, Any]]) -> None:
        self._plan, self._status = plan, status
        self._directory = Path(plan.log_dir) if plan.log_dir is not None else None
        self._over = threading.Event()
        self._lock = threading.Lock()

    def start(self) -> None:
        """Write `plan.json`, and begin to follow the status."""
        if self._directory is None or self._plan.job is None or not self._plan.job.head:
            return
        write(self._directory / "plan.json", json.dumps(to_jsonable(self._plan), indent=2) + "\n")
        threading.Thread(target=self._follow, name="job-files", daemon=True).start()

    def close(self) -> None:
        """Write the last status."""
        self._over.set()
        if self._directory is not None and self._plan.job is not None and self._plan.job.head:
            self._write_status(dict(self._status()))

    def _follow(self) -> None:
        shown: object = None
        written = 0.0
        while not self._over.wait(INTERVAL):
            status = dict(self._status())
            # A node whose runner has not answered yet may hold what a request needs.
            everywhere = status["ready"] and not status["waiting_for"]
            seen = (
                [(p["name"], p["state"], p["ready"]) for p in status["processes"]],
                everywhere,
                status["state"],
            )
            if seen == shown and time.monotonic() < written + AT_LEAST_EVERY:
                continue
            shown, written = seen, time.monotonic()
            self._write_status(status)
            job = self._plan.job
            if everywhere and self._directory is not None and job is not None and job.api_url:
                write(self._directory / "url", job.api_url + "\n")

    def _write_status(self, status: Mapping[str, Any]) -> None:
        assert self._directory is not None
        with self._lock:
            write(self._directory / "status.json", json.dumps(status, indent=2) + "\n")


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


def record_failure(directory: str, code: int, reason: str) -> None:
    """Write ``<code> <reason>`` to `failure`, unless a node that knew earlier has done so."""
    line = f"{code} {' '.join(reason.splitlines())}\n"
    path = Path(directory, "failure")
    temporary = path.with_name(f".failure.{secrets.token_hex(8)}")
    with contextlib.suppress(OSError):
        temporary.write_text(line)
        try:
            # A hard link appears whole and never replaces one, on every shared file system.
            os.link(temporary, path)
        finally:
            temporary.unlink()
