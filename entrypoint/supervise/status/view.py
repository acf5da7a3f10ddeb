"""What a page shows of one node: its status, what follows from earlier starts, its last lines."""

from __future__ import annotations

import http.client
import re
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

from entrypoint.plan.types import Plan
from entrypoint.supervise.output.log_files import RUNNER
from entrypoint.supervise.status import starts

UNSEEN = ("layouts", "probes", "load")
"""Fields of the status that no page shows."""
LINES = 6
"""Last lines of each process."""
WIDTH = 240
"""Characters of a line that are shown."""
TIMEOUT = 2.0
"""Seconds that a frontend's page of metrics may take."""
SPAN = 3.0
"""Seconds between two looks at a frontend's counter, at least: a rate over less jumps."""
TOKENS = ("dynamo_frontend_output_tokens_total", "dynamo_frontend_output_sequence_tokens_sum")
"""Counters of output tokens by release of Dynamo; the first that is there counts."""
_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{[^}]*\})? (\S+)", re.MULTILINE)


class NodeView:
    """Makes the view of this container; its methods may be called from any thread."""

    def __init__(
        self, plan: Plan, status: Callable[[], dict[str, Any]], last_lines: Callable[[str, int], list[str]]
    ) -> None:
        self._plan, self._status, self._last_lines = plan, status, last_lines
        self._starts = starts.read(starts.file_of(plan))
        self._frontend = Frontend(plan)

    def make(self) -> dict[str, Any]:
        """The view now. Durations are seconds."""
        plan, status = self._plan, self._status()
        job = plan.job
        return {
            "name": job.node if job is not None else socket.gethostname(),
            "holds": job.what if job is not None else None,
            "seen": "answers",
            "at": round(time.time(), 1),
            "status": {key: value for key, value in status.items() if key not in UNSEEN},
            "lines": {p["name"]: self._lines(p["name"]) for p in status["processes"]},
            "logs": self._logs(),
            "starts": [start["ready"] for start in self._starts],
            "remaining": starts.remaining(status, self._starts),
            **self._frontend.figures(),
        }

    def _lines(self, name: str) -> list[str]:
        return [line[:WIDTH] for line in self._last_lines(name, LINES)]

    def log(self, name: str, lines: int) -> str | None:
        """The last `lines` lines of a process, or events of the `runner`, as a text; None: there is none."""
        if name not in {RUNNER, *(process.name for process in self._plan.processes)}:
            return None
        return "".join(f"{line}\n" for line in self._last_lines(name, lines))

    def _logs(self) -> dict[str, str]:
        """The log file of each process, where there are any."""
        plan = self._plan
        if plan.log_dir is None:
            return {}
        names = plan.job.log_names if plan.job is not None else {}
        return {p.name: f"{plan.log_dir}/{names.get(p.name, p.name)}.log" for p in plan.processes}


class Frontend:
    """The frontend of this container, if there is one: requests in flight and tokens a second."""

    def __init__(self, plan: Plan) -> None:
        found = next((p for p in plan.processes if p.name == "frontend"), None)
        self._drain = found.drain if found is not None else None
        self._model = plan.served_model_name
        self._counts: list[tuple[float, float]] = []
        self._lock = threading.Lock()

    def figures(self) -> dict[str, float | None]:
        """What its page of metrics says now; None where it says nothing."""
        if self._drain is None:
            return {"in_flight": None, "tokens_per_second": None}
        samples = _samples(_page(self._drain.url))
        counted = next((samples[name] for name in TOKENS if name in samples), None)
        return {
            "in_flight": samples.get(self._drain.metric),
            "tokens_per_second": None if counted is None else self._rate(counted, time.monotonic()),
        }

    def _rate(self, count: float, now: float) -> float | None:
        """Tokens a second over SPAN seconds or a little more; `now` is monotonic."""
        with self._lock:
            if self._counts and count < self._counts[-1][1]:
                self._counts.clear()  # the frontend was started again
            self._counts.append((now, count))
            while len(self._counts) > 2 and now - self._counts[1][0] >= SPAN:
                del self._counts[0]
            since, first = self._counts[0]
        return round((count - first) / (now - since), 1) if now - since >= SPAN else None


def _samples(page: str) -> dict[str, float]:
    """By name, the sum of a page's samples."""
    found: dict[str, float] = {}
    for name, value in _SAMPLE.findall(page):
        try:
            found[name] = found.get(name, 0.0) + float(value)
        except ValueError:
            continue
    return found


def _page(url: str) -> str:
    """A page of metrics; empty when nobody answers."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT)
    try:
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        return answer.read().decode(errors="replace") if answer.status == 200 else ""
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()


def silent(
    peer: Mapping[str, str], last: Mapping[str, Any] | None, why: str, seconds: float | None
) -> dict[str, Any]:
    """The view of a node that does not answer: what it said last, if anything. `seconds`: since then."""
    known = dict(last) if last is not None else {"status": None, "lines": {}, "logs": {}}
    return known | {
        "name": peer["name"],
        "holds": peer["holds"],
        "seen": "silent",
        "why": why,
        "silent": seconds,
    }
