"""Waiting for the last requests before the stop signal."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from entrypoint.plan.types import Criticality, Drain, HttpProbe, Process
from entrypoint.supervise.probes.asking import sum_of
from tests.support.plans import plan, process, server
from tests.support.runner import Runner, free_port, until

SERVER = """
import http.server, os, signal, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        count = open('count').read().strip()
        lines = ['# TYPE in_flight gauge', 'in_flight{model="a"} ' + count, 'in_flight{model="b"} 0', '']
        body = chr(10).join(lines).encode()
        self.send_response(200); self.send_header('Content-Length', str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
signal.signal(15, lambda *a: (print('TERM with', open('count').read().strip(), flush=True), os._exit(0)))
http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()
"""


def draining(tmp_path: Path, in_flight: int, timeout: float) -> Process:
    port = free_port()
    (tmp_path / "count").write_text(str(in_flight))
    url = f"http://127.0.0.1:{port}/metrics"
    return server(
        "web", argv=(sys.executable, "-c", SERVER, str(port)), cwd=str(tmp_path), ready=HttpProbe(url),
        drain=Drain(url, "in_flight", 0.0, timeout),
    )  # fmt: skip


def test_the_stop_signal_waits_for_the_last_request(tmp_path: Path) -> None:
    p = plan(process("engine"), draining(tmp_path, 2, 60.0), stop_timeout=90.0)
    with Runner.of_plan(p, tmp_path) as runner:
        runner.wait_for("| ready after")
        runner.signal(signal.SIGTERM)
        runner.wait_for("stopping: asked")
        until(lambda: runner.get("/readyz")[0] == 503, "not ready before anything is signalled")
        assert runner.status_of("web")["state"] == "draining"
        (tmp_path / "count").write_text("0")
        assert runner.wait() == 0
    assert any(line.endswith("TERM with 0") for line in runner.lines), runner.text()


@pytest.mark.parametrize("reason", ["drain time", "stop budget"])
def test_a_request_that_never_ends_is_not_waited_for_for_ever(tmp_path: Path, reason: str) -> None:
    web = draining(tmp_path, 1, 0.5 if reason == "drain time" else 600.0)
    p = plan(web, stop_timeout=60.0 if reason == "drain time" else 3.0)
    with Runner.of_plan(p, tmp_path) as runner:
        runner.wait_for("| ready after")
        runner.signal(signal.SIGTERM)
        assert runner.wait() == 0
    assert any(line.endswith("TERM with 1") for line in runner.lines), runner.text()


DIES = """
def dies(*a):
    server.socket.close()
    time.sleep(0.5)
    os.kill(os.getpid(), 9)
signal.signal(10, dies)
server = http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Handler)
server.serve_forever()
"""
CLOSES = DIES.replace("os.kill(os.getpid(), 9)", "time.sleep(600)")


@pytest.mark.parametrize(
    ("script", "code", "last"),
    [(DIES, 137, "before its stop signal"), (CLOSES, 0, "asked to stop by SIGTERM")],
)
def test_a_port_that_closes_is_no_answer(script: str, code: int, last: str, tmp_path: Path) -> None:
    """The kernel closes a killed process's ports before anybody can see its end."""
    web = draining(tmp_path, 1, 60.0)
    argv = (sys.executable, "-c", SERVER.rsplit("\n", 2)[0] + script, web.argv[-1])
    web = replace(web, argv=argv, criticality=Criticality.CRITICAL)
    with Runner.of_plan(plan(web, stop_timeout=90.0), tmp_path) as runner:
        runner.wait_for("| ready after")
        runner.signal(signal.SIGTERM)
        until(lambda: runner.status_of("web")["state"] == "draining", "it drains")
        os.kill(runner.status_of("web")["pid"], signal.SIGUSR1)
        assert runner.wait(40) == code
    assert last in runner.lines[-1], runner.text()


def test_samples_are_added_up_by_exact_name() -> None:
    text = '# HELP a b\na_total 9\na{x="1 2"} 2\na{x="}"} 3 1700000000\na 1\nab 7\n'
    assert sum_of(text, "a") == 6
