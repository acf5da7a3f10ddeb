"""Which peer is lost, which is only slow, and what that means for this runner. No process, no network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from entrypoint.plan.types import JobPlan, Peer
from entrypoint.supervise.lifecycle.actions import Action, Signal
from entrypoint.supervise.lifecycle.director import Director
from entrypoint.supervise.lifecycle.peer_watch import HELD, REFUSED_AFTER, SILENT_AFTER, Answer, PeerWatch
from entrypoint.supervise.lifecycle.verdicts import Verdict
from tests.support.plans import plan, process

LEADER = Peer("n1", "decode worker 0 rank 0", "http://n1:1")
HEAD = Peer("n0", "prefill worker 0 rank 0", "http://n0:1")
FRONTEND = Peer("n9", "prefill worker 0 rank 3", "http://n9:1", watched=False)


def job(*peers: Peer, after: Mapping[str, tuple[tuple[str, str], ...]] | None = None) -> JobPlan:
    return JobPlan(
        number=1,
        node="n2",
        what="decode worker 0 rank 1",
        head=False,
        api_url="http://n0:8000",
        peers=peers,
        peer_timeout=60.0,
        stops_after=after or {},
        stop_hold=10.0,
        log_names={},
    )


def status(state: str = "starting", **fields: Any) -> dict[str, Any]:
    return {"state": state, "exit_code": None, "reason": None, "processes": [], **fields}


def refused(peer: str = "n1") -> Answer:
    return Answer(peer, refused=True, why="connection refused")


def silent(peer: str = "n1") -> Answer:
    return Answer(peer, why="timed out")


def up(peer: str = "n1", **fields: Any) -> Answer:
    return Answer(peer, status(**fields))


def feed(watch: PeerWatch, *events: tuple[float, Answer]) -> list[Verdict]:
    return [v for now, answer in events if (v := watch.answered(answer, now)) is not None]


def test_a_rank_that_loads_for_twenty_minutes_is_slow_not_lost() -> None:
    watch = PeerWatch(job(LEADER), 0.0)
    assert feed(watch, *((float(t), up()) for t in range(1200))) == []
    assert watch.overdue(5000.0) is None


def test_a_peer_that_refuses_connections_is_lost_after_a_while() -> None:
    watch = PeerWatch(job(LEADER), 0.0)
    assert feed(watch, (1.0, up()), (2.0, refused()), (2.0 + REFUSED_AFTER - 0.1, refused())) == []
    (verdict,) = feed(watch, (2.0 + REFUSED_AFTER, refused()))
    assert verdict.code == 76
    assert verdict.reason == (
        "lost decode worker 0 rank 1 on n1: its runner does not answer any more (connection refused)"
    ).replace("rank 1", "rank 0")


def test_a_peer_whose_start_is_refused_never_comes_up_and_is_no_lost_one() -> None:
    watch = PeerWatch(job(LEADER), 0.0)
    held = up(state=HELD, reason="cannot use GLM47_PREFILL_TP: none: give a number")
    assert feed(watch, *((float(t), held) for t in range(60))) == []
    assert "its start is refused: cannot use GLM47_PREFILL_TP" in watch.missing()[0]
    verdict = watch.overdue(60.0)
    assert verdict is not None
    assert (verdict.code, "GLM47_PREFILL_TP: none" in verdict.reason) == (75, True)


def test_a_hiccup_of_the_network_is_forgiven() -> None:
    watch = PeerWatch(job(LEADER), 0.0)
    for start in range(0, 200, 20):
        gap = SILENT_AFTER - 0.1
        assert feed(watch, (start, up()), (start + 1, silent()), (start + 1 + gap, silent())) == []
    (verdict,) = feed(watch, (299.0, up()), (300.0, silent()), (300.0 + SILENT_AFTER, silent()))
    assert "timed out" in verdict.reason


def test_a_peer_that_has_not_come_up_is_waited_for_and_then_named() -> None:
    watch = PeerWatch(job(LEADER, HEAD, FRONTEND), 0.0)
    assert feed(watch, *((float(t), refused()) for t in range(59)), (1.0, up("n0"))) == []
    assert watch.missing() == ["n1 (decode worker 0 rank 0): connection refused"]
    assert watch.overdue(59.9) is None
    verdict = watch.overdue(60.0)
    assert verdict is not None
    assert verdict.code == 75
    assert verdict.reason == (
        "cannot start: n1 (decode worker 0 rank 0; connection refused) never came up within 60 s: "
        "look at this node, or raise GLM47_START_TIMEOUT"
    )


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (137, "killed by SIGKILL", (76, "lost decode worker 0 rank 0 on n1: killed by SIGKILL")),
        (66, "no model", (76, "lost decode worker 0 rank 0 on n1: no model")),
        (76, "lost decode worker 0 rank 1 on n2: x", (76, "lost decode worker 0 rank 1 on n2: x")),
        (75, "cannot start: n7 never came up", (75, "cannot start: n7 never came up")),
        (75, "decode hangs: it spins", (75, "decode worker 0 rank 0 on n1: decode hangs: it spins")),
        (75, "decode worker 0 rank 3 on n4: it hangs", (75, "decode worker 0 rank 3 on n4: it hangs")),
    ],
)
def test_a_peer_that_says_it_fails_is_believed_at_once(
    code: int, reason: str, expected: tuple[int, str]
) -> None:
    watch = PeerWatch(job(LEADER), 0.0)
    (verdict,) = feed(watch, (1.0, up(state="stopping", exit_code=code, reason=reason)))
    assert (verdict.code, verdict.reason) == expected


def test_a_peer_that_was_asked_to_stop_is_not_a_failure_until_it_is_gone() -> None:
    watch = PeerWatch(job(LEADER), 0.0)
    assert feed(watch, (1.0, up(state="stopping", exit_code=0, reason="asked to stop by SIGTERM"))) == []
    assert len(feed(watch, (2.0, refused()), (2.0 + REFUSED_AFTER, refused()))) == 1


def test_asked_to_stop_because_a_peer_was_gone() -> None:
    watch = PeerWatch(job(LEADER, HEAD), 0.0)
    feed(watch, (1.0, up()), (1.0, up("n0")))
    assert watch.gone_when_asked_to_stop([up(), up("n0")]) is None
    assert watch.gone_when_asked_to_stop([up(state="stopping", exit_code=0), silent("n0")]) is None
    verdict = watch.gone_when_asked_to_stop([up(), refused("n0")])
    assert verdict is not None
    assert verdict.code == 76
    assert "prefill worker 0 rank 0 on n0" in verdict.reason


def test_a_peer_that_never_was_there_is_no_reason_for_a_stop() -> None:
    assert PeerWatch(job(LEADER), 0.0).gone_when_asked_to_stop([refused()]) is None


# -- the order of a stop over several nodes


def stopping(watch: PeerWatch) -> tuple[Director, list[Action]]:
    d = Director(plan(process("decode"), stop_timeout=30.0, job=watch.job), 0.0)
    d.watch = watch
    for _ in d.tick(0.0):
        d.spawned("decode", 1, 0.0)
    d.health("decode", True, "", 0.0)
    return d, d.stop("asked", 100.0)


def signalled(actions: list[Action]) -> list[str]:
    return [a.name for a in actions if isinstance(a, Signal)]


AFTER = {"decode": (("n0", "frontend"), ("n9", "frontend"))}


def test_a_worker_goes_on_until_the_frontends_of_other_nodes_have_ended() -> None:
    watch = PeerWatch(job(HEAD, FRONTEND, after=AFTER), 0.0)
    d, first = stopping(watch)
    assert signalled(first) == []
    assert d.next_deadline() == pytest.approx(110.0)
    ended = {"name": "frontend", "state": "ended"}
    watch.answered(up("n0", processes=[ended]), 101.0)
    assert signalled(d.tick(101.0)) == []
    watch.answered(up("n9", processes=[{"name": "frontend", "state": "draining"}]), 102.0)
    assert signalled(d.tick(102.0)) == []
    watch.answered(up("n9", processes=[ended]), 103.0)
    assert signalled(d.tick(103.0)) == ["decode"]


def test_a_runner_that_is_gone_holds_nothing_up() -> None:
    watch = PeerWatch(job(HEAD, FRONTEND, after=AFTER), 0.0)
    feed(watch, (1.0, up("n0")), (1.0, up("n9")))
    d, _ = stopping(watch)
    feed(watch, (101.0, refused("n0")), (101.0, refused("n9")))
    assert signalled(d.tick(101.0)) == ["decode"]


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([(101.0, refused("n0"))], id="refused"),
        pytest.param([(90.0, silent("n0")), (101.0, silent("n0"))], id="without a name or an answer"),
        pytest.param([(101.0, up("n0", state=HELD, reason="no"))], id="held"),
    ],
)
def test_who_never_came_up_holds_nothing_up(answers: list[tuple[float, Answer]]) -> None:
    """A follower whose leader was lost before they met, as where both start again and are deleted."""
    watch = PeerWatch(job(HEAD, after={"decode": (("n0", "decode"),)}), 0.0)
    d, _ = stopping(watch)
    feed(watch, *answers)
    assert signalled(d.tick(101.0)) == ["decode"]


def test_who_came_up_later_is_waited_for() -> None:
    watch = PeerWatch(job(HEAD, after={"decode": (("n0", "decode"),)}), 0.0)
    running = up("n0", processes=[{"name": "decode", "state": "running"}])
    feed(watch, (1.0, refused("n0")), (2.0, silent("n0")), (20.0, silent("n0")), (30.0, running))
    _, first = stopping(watch)
    assert signalled(first) == []


def test_other_nodes_are_waited_for_within_a_limit() -> None:
    d, _ = stopping(PeerWatch(job(HEAD, FRONTEND, after=AFTER), 0.0))
    assert signalled(d.tick(109.9)) == []
    assert signalled(d.tick(110.0)) == ["decode"]
    assert (d.next_deadline() or 0.0) > 110.0


def test_a_failure_waits_for_nobody_and_has_its_own_budget() -> None:
    watch = PeerWatch(job(HEAD, FRONTEND, after=AFTER), 0.0)
    d = Director(plan(process("decode", grace=30.0), stop_timeout=60.0, job=watch.job), 0.0)
    d.watch = watch
    for _ in d.tick(0.0):
        d.spawned("decode", 1, 0.0)
    assert signalled(d.fail(76, "lost", 100.0, budget=8.0)) == ["decode"]
    assert (d.next_deadline() or 999.0) < 108.0
