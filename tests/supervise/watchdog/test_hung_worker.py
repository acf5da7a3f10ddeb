"""What it means for a container that an engine hangs, or that another rank of it was lost."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from entrypoint.plan.roles.sglang import VITAL
from entrypoint.plan.stop_budget import BROKEN_GRACE
from entrypoint.plan.types import Drain, HangWatch
from entrypoint.supervise.lifecycle.actions import Action, Say, Signal, Spawn
from entrypoint.supervise.lifecycle.director import Director
from entrypoint.supervise.lifecycle.looks import Finding, Requests, Stuck
from entrypoint.supervise.lifecycle.verdicts import Clues, Dead
from entrypoint.supervise.status import metrics, report
from tests.support.plans import plan, process, server
from tests.support.runner import ROOT, Runner, until

LEADER, DETOKENIZER = "sglang::scheduler_TP0", "sglang::detokenizer"

LIMITS = HangWatch(10.0, 45.0, "http://127.0.0.1:1/metrics", "f", "b", "a", "")
AT = Stuck(LEADER, 12, "spins with 1 request without an answer", 0.0)


def finding(seconds: float | None) -> Finding:
    stuck = replace(AT, seconds=seconds) if seconds is not None else None
    return Finding(stuck, Requests(1.0, 2.0, 3.0), stuck is not None)


def running(limits: HangWatch = LIMITS, **fields: Any) -> Director:
    drain = Drain("http://127.0.0.1:1/", "in_flight", 1.0, 20.0)
    worker = process("decode", hang=limits, drain=drain, grace=30.0)
    director = Director(plan(worker, server("frontend"), stop_timeout=60.0, **fields), 0.0)
    actions: list[Action] = director.tick(0.0)
    for action in [a for a in actions if isinstance(a, Spawn)]:
        director.spawned(action.name, 100, 0.0)
        director.health(action.name, True, "", 0.0)
    assert director.ready
    return director


def test_first_it_is_not_ready_then_it_is_ended_with_75() -> None:
    d = running()
    d.looked_at("decode", finding(8.0), 8.0)
    assert d.ready
    said = [a.text for a in d.looked_at("decode", finding(10.0), 10.0) if isinstance(a, Say)]
    assert said == [f"decode is not ready any more: {replace(AT, seconds=10.0)}"]
    d.health("decode", True, "", 11.0)  # its probe knows nothing of it
    assert not d.ready and d.verdict is None
    status = report.status(d, 11.0, {}, {})
    assert status["processes"][0]["stuck"] == str(replace(AT, seconds=10.0))
    page, _ = metrics.page(status, 0.0)
    assert 'glm47_process_stuck_seconds{process="decode",role="decode"} 10' in page.decode()
    assert report.live_probe(status, 0.0)[0]
    actions = d.looked_at("decode", finding(45.0), 45.0)
    assert d.verdict is not None and d.verdict.code == 75
    assert (
        d.verdict.reason == f"decode hangs: {replace(AT, seconds=45.0)} (GLM47_HANG_TIMEOUT): start it again"
    )
    assert not report.live_probe(report.status(d, 45.0, {}, {}), 0.0)[0]
    # No drain, and little patience: nothing will come of its requests.
    assert Signal("decode", "TERM") in actions
    assert d.procs["decode"].kill_at == 45.0 + BROKEN_GRACE


def test_it_is_ready_again_once_it_gets_on() -> None:
    d = running()
    d.looked_at("decode", finding(12.0), 12.0)
    assert not d.ready
    said = [a.text for a in d.looked_at("decode", finding(None), 14.0) if isinstance(a, Say)]
    assert d.ready and d.procs["decode"].stuck is None and said == ["decode is ready again"]


def test_it_is_not_ready_again_while_its_probe_says_no() -> None:
    d = running()
    d.looked_at("decode", finding(12.0), 12.0)
    d.health("decode", False, "http://127.0.0.1:1/health answers 503", 13.0)
    assert d.procs["decode"].why == str(replace(AT, seconds=12.0))
    d.looked_at("decode", finding(None), 14.0)
    assert not d.ready
    d.health("decode", True, "", 15.0)
    assert d.ready


@pytest.mark.parametrize(("unready", "timeout"), [(0.0, 45.0), (10.0, 0.0)])
def test_0_turns_either_off(unready: float, timeout: float) -> None:
    d = running(replace(LIMITS, unready=unready, timeout=timeout))
    d.looked_at("decode", finding(30.0), 30.0)
    assert d.ready is (unready == 0)
    d.looked_at("decode", finding(300.0), 300.0)
    assert (d.verdict is None) is (timeout == 0)


def test_while_it_stops_nobody_is_accused() -> None:
    d = running()
    d.stop("asked to stop", 1.0)
    assert d.looked_at("decode", finding(100.0), 2.0) == []
    assert d.verdict is not None and d.verdict.code == 0


def test_one_that_has_not_been_ready_is_ended_but_does_not_lose_its_readiness() -> None:
    """Stopped while it loads."""
    d = Director(plan(process("decode", hang=LIMITS)), 0.0)
    d.tick(0.0)
    d.spawned("decode", 100, 0.0)
    assert d.looked_at("decode", finding(12.0), 12.0) == []
    d.looked_at("decode", finding(46.0), 46.0)
    assert d.verdict is not None and d.verdict.code == 75


# -- a rank that was lost on another node


def test_a_leader_names_the_rank_that_was_lost_not_its_own_victim() -> None:
    d = running()
    d.hollow("decode", Dead(LEADER, 12, 0), 12.0, Clues(lost_rank="10.0.0.2"))
    assert d.verdict is not None and d.verdict.code == 76
    assert d.verdict.reason == (
        f"decode lost the rank at 10.0.0.2 of its worker: see that node's log; its process {LEADER} (pid 12) "
        "ended because of that: exit code 0"
    )


def test_one_that_a_signal_ended_is_its_own_cause() -> None:
    d = running()
    d.hollow("decode", Dead(LEADER, 12, 137), 12.0, Clues(lost_rank="10.0.0.2"))
    assert d.verdict is not None and d.verdict.code == 137


def test_an_engine_that_ends_itself_for_a_lost_rank_ends_with_76_too() -> None:
    d = running()
    d.exited("decode", 137, 1.0, Clues(lost_rank="10.0.0.2"))
    assert d.verdict is not None and d.verdict.code == 76
    assert "the rank at 10.0.0.2" in d.verdict.reason and "killed by SIGKILL (137)" in d.verdict.reason


# -- with a runner


def test_a_stopped_process_ends_the_container_unless_it_goes_on(tmp_path: Path) -> None:
    """At the real pace; the engine is a stand-in (tests/support/standin_engine.py)."""
    command = (sys.executable, "-m", "tests.support.standin_engine", "--linger", "60", LEADER, DETOKENIZER)
    limits = replace(LIMITS, unready=2.0, timeout=6.0, metrics=None)
    spec = process("decode", argv=command, cwd=str(ROOT), vital=VITAL, hang=limits, grace=30.0)
    with Runner.of_plan(plan(spec), tmp_path) as runner:
        pid = int(runner.wait_for(f"decode | {LEADER} pid").split()[-1])
        runner.wait_for("| ready after")
        os.kill(pid, signal.SIGSTOP)
        until(lambda: runner.get("/readyz")[0] == 503, "not ready")
        assert runner.status_of("decode")["stuck_seconds"] >= 2
        os.kill(pid, signal.SIGCONT)
        until(lambda: runner.get("/readyz")[0] == 200, "ready again")
        os.kill(pid, signal.SIGSTOP)
        assert runner.wait() == 75
    reason = f"decode hangs: its process {LEADER} (pid {pid}) is stopped by a signal (SIGSTOP), for 6 s"
    assert runner.lines[-1] == f"runner | {reason} (GLM47_HANG_TIMEOUT): start it again"
