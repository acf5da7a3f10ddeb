"""Who answers nothing any more: a server is replaced, what is critical ends its container."""

from __future__ import annotations

import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path

import httpx
import pytest

from entrypoint.plan.types import HttpProbe, NatsProbe
from entrypoint.supervise.lifecycle import restarts
from entrypoint.supervise.lifecycle.actions import Kill
from entrypoint.supervise.lifecycle.director import Director
from entrypoint.supervise.lifecycle.states import State
from entrypoint.supervise.probes import asking, prober
from tests.support.plans import plan, process, server
from tests.support.runner import Runner, alive, free_port, until

PROBE = HttpProbe("http://127.0.0.1:1/")


def up(*processes: object, **fields: object) -> Director:
    director = Director(plan(*processes, **fields), 0.0)  # type: ignore[arg-type]
    director.tick(0.0)
    for name in director.procs:
        director.spawned(name, 1, 0.0)
        director.health(name, True, "", 0.0)
    return director


def test_a_server_is_killed_and_started_again() -> None:
    d = up(server("a", ready=PROBE, silent_timeout=15.0))
    assert d.silent("a", 14.9, 20.0) == []
    assert Kill("a") in d.silent("a", 15.0, 21.0)
    assert d.silent("a", 30.0, 22.0) == [], "it is being killed"
    d.exited("a", 137, 22.0)
    d.gone("a", 22.0)
    assert d.procs["a"].state is State.BACKOFF and d.procs["a"].restarts == 1 and d.stopping is None


def test_one_that_hangs_again_and_again_ends_the_container() -> None:
    d = up(server("a", ready=PROBE, silent_timeout=15.0), max_restarts=0)
    d.silent("a", 15.0, 20.0)
    d.exited("a", 137, 20.0)
    d.gone("a", 20.0)
    assert d.verdict is not None and d.verdict.code == 75
    assert d.verdict.reason.startswith("a hangs: it has answered nothing for 15 s")


def test_what_is_critical_ends_the_container() -> None:
    d = up(process("a", ready=PROBE, silent_timeout=15.0), server("b"))
    d.silent("a", 16.0, 20.0)
    assert d.verdict is not None and d.verdict.code == 75 and "a hangs" in d.verdict.reason


def test_who_has_never_been_ready_or_has_no_limit_is_left_alone() -> None:
    d = up(server("a", ready=PROBE))
    assert d.silent("a", 1e6, 20.0) == []
    d = Director(plan(server("a", ready=PROBE, silent_timeout=15.0)), 0.0)
    d.tick(0.0)
    d.spawned("a", 1, 0.0)
    assert d.silent("a", 1e6, 20.0) == []


@pytest.mark.parametrize("count", [0, 5, 1023, 1024, 2000, 10**9])
def test_any_number_of_restarts_has_a_delay(count: int) -> None:
    """2 to the power of 1024 is no float."""
    proc = up(server("a", ready=PROBE)).procs["a"]
    proc.restarts = count
    proc.enter(State.LEFTOVERS)
    proc.exit_code = 1
    restarts.after_end(proc, 10**10, 1.0, 0.0)
    assert proc.start_again_at is not None and 0.5 <= proc.start_again_at <= restarts.BACKOFF_MAX


SERVES = """
import http.server, sys
class Yes(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Yes).serve_forever()
"""


def test_a_stopped_server_is_replaced_by_a_real_runner(tmp_path: Path) -> None:
    port = free_port()
    probe = HttpProbe(f"http://127.0.0.1:{port}/")
    serves = server("web", argv=(sys.executable, "-c", SERVES, str(port)), ready=probe, silent_timeout=1.0)
    with Runner.of_plan(plan(serves), tmp_path) as runner:
        until(lambda: runner.get("/readyz")[0] == 200, "ready")
        first = runner.status_of("web")["pid"]
        os.kill(first, signal.SIGSTOP)
        longest = prober.SILENCES * (asking.TIMEOUT + prober.WATCH) + 10
        runner.wait_for("web hangs: it has answered nothing", longest)
        until(lambda: runner.get("/readyz")[0] == 200, "ready again")
        assert runner.status_of("web")["pid"] != first and runner.status_of("web")["restarts"] == 1
        runner.signal(signal.SIGTERM)
        assert runner.wait() == 0


def test_what_we_ourselves_lack_is_nobodys_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> object:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "socket", fail)
    monkeypatch.setattr(socket, "create_connection", fail)
    for probe in (PROBE, NatsProbe("127.0.0.1", 1)):
        ready, why, _ = asking.ask(probe, lambda *_: httpx.Client(trust_env=False))
        assert not ready and "Too many open files" in why


def test_an_orphan_that_a_kill_made_is_killed_too(tmp_path: Path) -> None:
    """Both are stopped, so TERM waits; the child of another session had a parent at the first KILL."""
    file = tmp_path / "pid"
    script = f"setsid sleep 1000 & echo $! >{file}; wait"
    p = plan(process("family", argv=("sh", "-c", script), grace=0.5), stop_timeout=5.0)
    with Runner.of_plan(p, tmp_path) as runner:
        child = int(until(lambda: file.exists() and file.read_text().strip(), "its child"))
        runner.wait_for("family is ready")
        for pid in (child, runner.status_of("family")["pid"]):
            os.kill(pid, signal.SIGSTOP)
            # Of two signals that are pending the kernel delivers TERM first.
            until(partial(stopped, pid), f"process {pid} is stopped")
        runner.signal(signal.SIGTERM)
        assert runner.wait() == 137
    assert not alive(child)


def stopped(pid: int) -> bool:
    """Whether process `pid` is stopped by a signal (proc_pid_stat(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
