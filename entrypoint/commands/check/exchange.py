"""The nodes of a job tell the head what they found, and compare clocks with it, over its health port."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from entrypoint.base.foreign import from_json
from entrypoint.commands.check.across import Report
from entrypoint.commands.check.findings import Finding
from entrypoint.supervise.status import health

ROUNDS = 5
"""Questions for the head's clock; the quickest answer counts."""
LARGEST = 1 << 20
"""Bytes of a report."""
PAUSE = 0.2
"""Seconds between two tries to reach a head that is not up yet."""
TIMEOUT = 5.0
"""Seconds for one answer."""


class Head:
    """Listens where the head's runner will listen, and takes one report of each node."""

    def __init__(self, host: str, port: int, nodes: Iterable[str]) -> None:
        """ConfigError (78) when the port is taken: the deployment runs already."""
        self.reports: dict[str, Report] = {}
        self._missing = set(nodes)
        self._all = threading.Event()
        self._lock = threading.Lock()
        head = self

        class Handler(BaseHTTPRequestHandler):
            timeout = TIMEOUT

            def do_GET(self) -> None:
                self._answer(200, {"now": time.time()})

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                taken = 0 < length <= LARGEST and head.take(self.rfile.read(length))
                self._answer(200 if taken else 400, {"taken": taken})

            def _answer(self, code: int, body: dict[str, Any]) -> None:
                data = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing of this is news."""

        listener = health.listen(host, port)
        self._server = ThreadingHTTPServer(("", 0), Handler, bind_and_activate=False)
        # Closing waits for answers that are under way: a node whose report was the last one must hear so.
        self._server.daemon_threads = False
        self._server.socket.close()
        self._server.socket = listener
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def take(self, body: bytes) -> bool:
        """Keep the report in `body`; False when it is none of a node that is waited for."""
        try:
            report = decoded(from_json(body))
        except (ValueError, TypeError, KeyError):
            return False
        return self.add(report)

    def add(self, report: Report) -> bool:
        """Keep `report`; False when its node has sent one, or is not of this job."""
        with self._lock:
            if report.node not in self._missing:
                return False
            self._missing.remove(report.node)
            self.reports[report.node] = report
            if not self._missing:
                self._all.set()
        return True

    def wait(self, seconds: float) -> None:
        """Wait until every node has sent its report, for `seconds` at most."""
        self._all.wait(seconds)
        self._server.shutdown()
        self._server.server_close()


def send(url: str, report: Report, seconds: float) -> str | None:
    """Send `report` to the head at `url`, its clock compared; why not, when that fails for `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            clock, error = compare_clocks(url)
            body = json.dumps(asdict(replace(report, clock=clock, clock_error=error))).encode()
            with _opener().open(urllib.request.Request(url, data=body), timeout=TIMEOUT):
                return None
        except urllib.error.HTTPError as error:
            return (
                f"the head answers {error.code}: a node of that name has sent its report, or is not expected"
            )
        except (OSError, ValueError) as error:
            if time.monotonic() > deadline:
                return str(getattr(error, "reason", error))
        time.sleep(PAUSE)


def compare_clocks(url: str) -> tuple[float, float]:
    """(seconds that this clock is ahead of the head's, seconds that this may be off at most).

    As NTP does: the head's time lies between question and answer, and the quickest answer of a few counts.
    """
    best = (0.0, float("inf"))
    for _ in range(ROUNDS):
        asked = time.time()
        with _opener().open(url, timeout=TIMEOUT) as answer:
            there = float(from_json(answer.read())["now"])
        answered = time.time()
        if answered - asked < 2 * best[1]:
            best = ((asked + answered) / 2 - there, (answered - asked) / 2)
    return best


def _opener() -> urllib.request.OpenerDirector:
    """The job's own nodes are never behind a proxy."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def decoded(data: dict[str, Any]) -> Report:
    """A report as it was before it became JSON; KeyError or TypeError when it is none."""
    return Report(**{
        **data,
        "findings": tuple(Finding(**found) for found in data["findings"]),
        "gpu_names": tuple(data["gpu_names"]),
        "cliques": tuple((str(cluster), int(clique)) for cluster, clique in data["cliques"]),
    })  # fmt: skip
