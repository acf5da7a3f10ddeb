"""Ends of engines while the container stops: as they were asked to, or not."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from entrypoint.plan.stop_budget import LATE_STOP
from entrypoint.plan.types import Drain, HttpProbe, Process, Withdrawal
from entrypoint.supervise.lifecycle.actions import Action, Kill, Say, Signal, Unlist
from entrypoint.supervise.lifecycle.actions import Drain as StartDrain
from entrypoint.supervise.lifecycle.director import Director
from entrypoint.supervise.lifecycle.endings import Ending, ending
from entrypoint.supervise.lifecycle.states import State
from entrypoint.supervise.lifecycle.verdicts import Clues, Dead
from tests.support.plans import plan, process, server
from tests.support.runner import Runner, free_port, until

DRAIN = Drain("http://127.0.0.1:1/", "in_flight", 1.0, 20.0, Withdrawal("file", "/nonexistent"))
SCHEDULER = "sglang::scheduler"

DRAINED = (
    "2026-11-25T16:10:59.919087Z  INFO tokenizer_manager.sigterm_watchdog: Gracefully exiting... Remaining "
    "number of requests 0. Remaining requests remaining_rids=[]."
)
WAITS = DRAINED.replace("requests 0.", "requests 1.").replace("[]", "['5f2c']")
LAUNCH = (
    "2026-11-25T16:11:00.384814Z ERROR engine.launch_phase_sigquit_handler: Received sigquit from a child "
    "process. It usually means the child failed."
)
RUNNING = (
    "2026-11-25T14:04:24.513904Z ERROR tokenizer_manager.running_phase_sigquit_handler: SIGQUIT received. "
    "signum=None, frame=None. It usually means one child failed."
)
CLOSED = (
    "RuntimeError: [/__w/pytorch/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed "
    "by peer [127.0.0.1]:37776. This is typically caused by a remote worker crashing."
)
REQUEST = "2026-11-25T16:10:59.1Z  INFO frontend: prompt='what does Received SIGTERM mean'"


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ([], Ending.UNKNOWN),
        ([REQUEST], Ending.UNKNOWN),
        ([WAITS], Ending.UNKNOWN),
        ([WAITS, DRAINED], Ending.DRAINED),
        ([WAITS, DRAINED, REQUEST], Ending.DRAINED),
        ([LAUNCH], Ending.CHILD_FAILED),
        ([RUNNING, *["All pyspy dump attempts failed for PID 3743."] * 200], Ending.CHILD_FAILED),
        ([CLOSED, "", LAUNCH], Ending.CHILD_FAILED),
        ([CLOSED], Ending.UNKNOWN),
    ],
)
def test_last_lines_tell_why_an_engine_ended_itself(lines: list[str], what: Ending) -> None:
    assert ending(lines) is what


# -- without a process


def running(*processes: Process, **fields: object) -> Director:
    director = Director(plan(*processes, **fields), 0.0)  # type: ignore[arg-type]
    director.tick(0.0)
    for pid, spec in enumerate(processes, 100):
        director.spawned(spec.name, pid, 0.0)
        director.health(spec.name, True, "", 0.0)
    assert director.ready
    return director


def kinds(actions: list[Action], kind: type) -> list[str]:
    return [a.name for a in actions if isinstance(a, kind) and not isinstance(a, Say)]


def ended(code: int, what: Ending = Ending.UNKNOWN, *, signalled: bool = True) -> tuple[int, str]:
    """A worker that ends with `code` in a stop, before or after its stop signal: (code, reason)."""
    d = running(process("decode", drain=DRAIN, stop_signal="INT"), stop_timeout=60.0)
    assert kinds(d.stop("asked to stop", 1.0), StartDrain) == ["decode"]
    if signalled:
        assert kinds(d.drained("decode", 2.0), Signal) == ["decode"]
    d.exited("decode", code, 3.0, clues=Clues(ending=what))
    d.gone("decode", 3.0)
    assert d.finished and d.verdict is not None
    return d.verdict.code, d.verdict.reason


@pytest.mark.parametrize(
    ("code", "what"),
    [
        (0, Ending.UNKNOWN),
        (130, Ending.UNKNOWN),
        (134, Ending.UNKNOWN),
        (1, Ending.UNKNOWN),
        (137, Ending.DRAINED),
    ],
)
def test_asked_to_stop_it_stopped_however_it_ended(code: int, what: Ending) -> None:
    assert ended(code, what) == (0, "asked to stop")


@pytest.mark.parametrize("signalled", [True, False], ids=["signalled", "draining"])
def test_a_kill_that_is_neither_ours_nor_its_own_is_no_clean_stop(signalled: bool) -> None:
    code, reason = ended(137, signalled=signalled)
    assert code == 137 and "decode ended" in reason and "not by the runner: out of memory?" in reason


def test_an_engine_whose_own_process_failed_in_the_stop_did_not_stop_cleanly() -> None:
    code, reason = ended(137, Ending.CHILD_FAILED)
    assert code == 137 and "a process of its own had failed" in reason


@pytest.mark.parametrize("code", [1, 134, 139])
def test_a_crash_while_it_drains_is_a_crash(code: int) -> None:
    got, reason = ended(code, signalled=False)
    assert got == code and "before its stop signal" in reason


def test_others_may_have_told_it_to_stop_as_well() -> None:
    """A signal to every process of a job step reaches the engine too: it drains and ends by itself."""
    assert ended(137, Ending.DRAINED, signalled=False) == (0, "asked to stop")
    assert ended(0, signalled=False) == (0, "asked to stop")


def test_a_server_that_dies_in_the_stop_took_nothing_with_it() -> None:
    d = running(server("etcd"), process("decode", needs=("etcd",), drain=DRAIN), stop_timeout=60.0)
    d.stop("asked to stop", 1.0)
    d.exited("etcd", 137, 2.0)
    assert d.verdict is not None and d.verdict.code == 0


@pytest.mark.parametrize("code", [137, 134, None])
def test_an_engine_that_drains_without_its_scheduler_is_killed_at_once(code: int | None) -> None:
    """It would wait for that answer for ever, and a frontend with it."""
    d = running(process("decode", drain=DRAIN), stop_timeout=60.0)
    d.stop("asked to stop", 1.0)
    actions = d.hollow("decode", Dead(SCHEDULER, 12, code), 13.0)
    assert kinds(actions, Kill) == ["decode"]
    d.exited("decode", 137, 13.1)
    d.gone("decode", 13.1)
    assert d.finished and d.verdict is not None and d.verdict.code == (code or 1)
    assert d.verdict.reason.startswith(f"asked to stop; decode cannot go on: its process {SCHEDULER}")


def test_a_frontend_does_not_drain_into_an_engine_without_its_scheduler() -> None:
    frontend = server("frontend", stops_before=("decode",), drain=DRAIN)
    d = running(process("decode"), frontend, stop_timeout=60.0)
    assert kinds(d.stop("asked to stop", 1.0), StartDrain) == ["frontend"]
    assert d.procs["decode"].state is State.RUNNING
    assert kinds(d.hollow("decode", Dead(SCHEDULER, 12, 137), 13.0), Kill) == ["decode"]


@pytest.mark.parametrize(("code", "asked", "off"), [(137, False, True), (9, False, True), (0, True, False)])
def test_what_died_is_taken_off_the_list(code: int, asked: bool, off: bool) -> None:
    d = running(process("decode", drain=DRAIN), stop_timeout=60.0)
    if asked:
        d.stop("asked to stop", 1.0)
        d.drained("decode", 2.0)
    assert kinds(d.exited("decode", code, 3.0), Unlist) == (["decode"] if off else [])


def test_what_cannot_answer_any_more_is_taken_off_the_list() -> None:
    d = running(process("decode", drain=DRAIN), stop_timeout=60.0)
    assert kinds(d.hollow("decode", Dead(SCHEDULER, 12, 137), 13.0), Unlist) == ["decode"]


@pytest.mark.parametrize(("drained_at", "killed_at"), [(2.0, 32.0), (20.0, 50.0), (40.0, 60.5), (50.4, 60.5)])
def test_what_the_drain_leaves_of_its_time_is_the_engines(drained_at: float, killed_at: float) -> None:
    """An engine on a busy machine may take long to leave."""
    drain = replace(DRAIN, timeout=100.0)
    d = running(process("decode", drain=drain, grace=30.0, least=10.0), stop_timeout=60.0)
    d.stop("asked to stop", 1.0)
    assert d.procs["decode"].drain_until == 50.5
    d.drained("decode", drained_at)
    assert not kinds(d.tick(killed_at - 0.1), Kill)
    assert kinds(d.tick(killed_at), Kill) == ["decode"]


def test_time_that_a_frontend_left_is_the_engines_too() -> None:
    frontend = server("frontend", stops_before=("decode",), drain=DRAIN, grace=4.0)
    d = running(process("decode", grace=30.0, least=10.0), frontend, stop_timeout=60.0)
    d.stop("asked to stop", 0.0)
    d.drained("frontend", 1.0)
    d.exited("frontend", 0, 2.0)
    assert kinds(d.gone("frontend", 2.0), Signal) == ["decode"]
    assert d.procs["decode"].kill_at == 32.0


# -- a follower


def follower(**fields: object) -> Director:
    return running(process("decode", leader_hold=40.0, grace=10.0), stop_timeout=60.0, **fields)


@pytest.mark.parametrize("lost_rank", ["10.0.0.7", None])
def test_a_follower_goes_on_until_its_leader_is_gone(lost_rank: str | None) -> None:
    d = follower()
    actions = d.stop("asked to stop", 1.0)
    assert not kinds(actions, Signal) and not kinds(d.tick(40.9), Signal)
    d.exited("decode", 137, 30.0, Clues(lost_rank=lost_rank, ending=Ending.CHILD_FAILED))
    d.gone("decode", 30.0)
    assert d.finished and d.verdict is not None and (d.verdict.code, d.verdict.reason) == (0, "asked to stop")


def test_a_follower_whose_leader_stays_is_stopped_in_time() -> None:
    d = follower()
    d.stop("asked to stop", 1.0)
    assert d.next_deadline() == 41.0
    assert kinds(d.tick(41.0), Signal) == ["decode"]
    assert kinds(d.tick(51.0), Kill) == ["decode"]
    assert d.verdict is not None and d.verdict.code == 137


def test_a_followers_kill_by_others_is_no_clean_stop() -> None:
    d = follower()
    d.stop("asked to stop", 1.0)
    d.exited("decode", 137, 5.0)
    assert d.verdict is not None and d.verdict.code == 137


@pytest.mark.parametrize(("late", "code"), [(LATE_STOP - 0.1, 0), (None, 76)])
def test_a_follower_without_its_leader_may_be_asked_a_little_later(late: float | None, code: int) -> None:
    """One stop reaches two nodes at different times."""
    d = follower()
    d.exited("decode", 137, 1.0, Clues(lost_rank="10.0.0.7", ending=Ending.CHILD_FAILED))
    d.gone("decode", 1.1)
    assert d.verdict is None and not d.ready and d.next_deadline() == 1.0 + LATE_STOP
    if late is not None:
        d.stop("asked to stop", 1.0 + late)
    d.tick(1.0 + LATE_STOP)
    assert d.finished and d.verdict is not None and d.verdict.code == code


@pytest.mark.parametrize("what", [Ending.CHILD_FAILED, Ending.UNKNOWN])
def test_a_follower_that_dies_of_something_else_says_so_at_once(what: Ending) -> None:
    d = follower()
    d.exited("decode", 137, 1.0, clues=Clues(ending=what))
    assert d.verdict is not None and d.verdict.code == 137


def test_a_follower_that_still_loads_has_nothing_to_wait_for() -> None:
    spec = process("decode", leader_hold=40.0, ready=HttpProbe("http://127.0.0.1:1/"), loading_grace=5.0)
    d = Director(plan(spec, stop_timeout=60.0), 0.0)
    d.tick(0.0)
    d.spawned("decode", 1, 0.0)
    assert kinds(d.stop("asked to stop", 1.0), Signal) == ["decode"]


# -- with a runner

WORKER = """
import http.server, json, os, signal, sys, threading, time
port, store, on_signal, line = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'in_flight %d\\n' % int(open('count').read())
        self.send_response(200); self.send_header('Content-Length', str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
def stop(signum, frame):
    print('got', signal.Signals(signum).name, flush=True)
    if on_signal == 'exit': os._exit(0)
    if on_signal == 'kill':
        print(line, flush=True)
        os.kill(os.getpid(), 9)
signal.signal(signal.SIGINT, stop)
server = http.server.ThreadingHTTPServer(('127.0.0.1', port), Handler)
entry = {'component': 'backend', 'transport': {'tcp': f'127.0.0.1:{port}/x/generate'}}
for kind in ('instances', 'mdc'):
    os.makedirs(f'{store}/v1/{kind}', exist_ok=True)
    open(f'{store}/v1/{kind}/dynamo%2Fbackend%2Fgenerate%2F{port:x}', 'w').write(json.dumps(entry))
server.serve_forever()
"""


def worker(tmp_path: Path, on_signal: str = "exit", line: str = "", drain: float = 30.0) -> Process:
    """A server that lists itself in a file store, counts requests in flight, and does as told on INT."""
    port, store = free_port(), str(tmp_path / "store")
    (tmp_path / "count").write_text("0")
    url = f"http://127.0.0.1:{port}/metrics"
    return process(
        "decode", argv=(sys.executable, "-c", WORKER, str(port), store, on_signal, line), cwd=str(tmp_path),
        ready=HttpProbe(url), drain=Drain(url, "in_flight", 0.0, drain, Withdrawal("file", store)),
        stop_signal="INT", grace=2.0,
    )  # fmt: skip


def listed(tmp_path: Path, kind: str = "instances") -> list[str]:
    return [path.name for path in (tmp_path / "store" / "v1" / kind).iterdir()]


@pytest.mark.parametrize(
    ("on_signal", "line", "code"),
    [("exit", "", 0), ("kill", DRAINED, 0), ("kill", "", 137), ("kill", RUNNING, 137), ("ignore", "", 137)],
)
def test_the_code_of_a_stop(tmp_path: Path, on_signal: str, line: str, code: int) -> None:
    spec = worker(tmp_path, on_signal, line, drain=1.0)
    with Runner.of_plan(plan(spec, stop_timeout=30.0), tmp_path) as runner:
        runner.wait_for("| ready after")
        runner.signal(signal.SIGTERM)
        assert runner.wait() == code, runner.text()
    assert any(line.endswith("got SIGINT") for line in runner.lines)


def test_it_is_off_the_list_while_it_answers_its_last_requests(tmp_path: Path) -> None:
    with Runner.of_plan(plan(worker(tmp_path), stop_timeout=60.0), tmp_path) as runner:
        runner.wait_for("| ready after")
        assert len(listed(tmp_path)) == 1
        (tmp_path / "count").write_text("1")
        runner.signal(signal.SIGTERM)
        until(lambda: not listed(tmp_path), "off the list")
        runner.wait_for_match(r"decode is off the list in .*: nothing new comes in")
        assert listed(tmp_path, "mdc"), "its card stays while it lives"
        assert runner.status_of("decode")["state"] == "draining"
        (tmp_path / "count").write_text("0")
        assert runner.wait() == 0


@pytest.mark.parametrize("when", ["serving", "draining"])
def test_a_worker_that_was_killed_is_off_the_list_when_its_container_ends(tmp_path: Path, when: str) -> None:
    spec = worker(tmp_path)
    with Runner.of_plan(plan(spec, stop_timeout=60.0), tmp_path) as runner:
        runner.wait_for("| ready after")
        if when == "draining":
            (tmp_path / "count").write_text("1")
            runner.signal(signal.SIGTERM)
            runner.wait_for("nothing new comes in")
        os.kill(runner.status_of("decode")["pid"], signal.SIGKILL)
        assert runner.wait() == 137
    assert listed(tmp_path) == [] and (when == "draining" or listed(tmp_path, "mdc") == [])
    if when == "draining":
        assert "before its stop signal" in runner.lines[-1]
