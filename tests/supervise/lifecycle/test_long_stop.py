"""A stop that has more time than was planned: before the end of a Slurm job, for whoever still answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from entrypoint.plan.types import Drain, JobPlan, Peer
from entrypoint.supervise.lifecycle import stop_steps
from entrypoint.supervise.lifecycle.actions import Action, Kill, Signal
from entrypoint.supervise.lifecycle.director import Director
from entrypoint.supervise.lifecycle.peer_watch import PeerWatch
from entrypoint.supervise.status.job_files import stop_budget
from tests.support.plans import plan, process, server

PLANNED, LEFT = 25.0, 115.0
DRAIN = Drain("http://127.0.0.1:1/", "in_flight", 1.0, 14.25)


def serving() -> Director:
    """A frontend that drains before a worker that drains."""
    d = Director(
        plan(
            server("frontend", drain=DRAIN, grace=16.0, least=2.0, stops_before=("decode",)),
            process("decode", drain=DRAIN, grace=20.0, least=6.0),
            stop_timeout=PLANNED,
        ),
        0.0,
    )
    d.tick(0.0)
    for number, name in enumerate(d.procs, 1):
        d.spawned(name, number, 0.0)
        d.health(name, True, "", 0.0)
    return d


def first(d: Director, kind: type[Action], name: str, until: float) -> float | None:
    """When `name` gets the first action of a kind, to a tenth of a second; None: not until then."""
    for tenth in range(int(until * 10)):
        for action in d.tick(100.0 + tenth / 10):
            if isinstance(action, kind) and getattr(action, "name", "") == name:
                return tenth / 10
    return None


@pytest.mark.parametrize(("budget", "drains"), [(None, 14.3), (LEFT, 104.3)])
def test_a_drain_has_all_that_is_more(budget: float | None, drains: float) -> None:
    d = serving()
    d.stop("asked", 100.0, budget)
    assert first(d, Signal, "frontend", LEFT) == pytest.approx(drains, abs=1.2)


def test_all_of_it_fits() -> None:
    """Nobody leaves by itself: the last KILL comes before the budget is over."""
    d = serving()
    d.stop("asked", 100.0, LEFT)
    assert first(d, Kill, "frontend", LEFT) is not None
    d.exited("frontend", 137, 100.0 + LEFT - 10)
    d.gone("frontend", 100.0 + LEFT - 10)
    killed = first(d, Kill, "decode", LEFT)
    assert killed is not None and LEFT - 9 < killed <= LEFT - 0.5


@pytest.mark.parametrize("second", [1.0, 40.0, 100.0, 112.0])
def test_a_second_signal_leaves_what_was_planned(second: float) -> None:
    """`scancel` while the job drains: KILL comes 30 s later."""
    d = serving()
    d.stop("asked", 100.0, LEFT)
    assert d.stopping is not None
    d.tick(100.0 + second)
    stop_steps.shorten(d.procs, d.stopping, 100.0 + second)
    latest = min(LEFT, second + PLANNED)
    assert d.stopping.end <= 100.0 + latest
    signalled = first(d, Signal, "frontend", LEFT) if second < 100 else second
    assert signalled is not None and signalled <= max(second, latest - 10)
    assert (d.procs["frontend"].drain_until or 0.0) <= 100.0 + latest


def test_a_stop_as_planned_gets_no_longer_by_signals() -> None:
    d = serving()
    d.stop("asked", 100.0)
    assert d.stopping is not None
    before = d.stopping.end
    for second in (1.0, 5.0, 20.0):
        stop_steps.shorten(d.procs, d.stopping, 100.0 + second)
        assert d.stopping.end == before


@pytest.mark.parametrize(("budget", "holds"), [(None, 10.0), (LEFT, 100.0)])
def test_other_nodes_are_waited_for_as_long(budget: float | None, holds: float) -> None:
    job = JobPlan(
        number=7, node="n1", what="decode worker 0 rank 0", head=False, api_url=None,
        peers=(Peer("n0", "frontend", "http://n0:1"),), peer_timeout=60.0,
        stops_after={"decode": (("n0", "frontend"),)}, stop_hold=10.0, log_names={},
    )  # fmt: skip
    d = Director(plan(process("decode"), stop_timeout=PLANNED, job=job), 0.0)
    d.watch = PeerWatch(job, 0.0)
    d.tick(0.0)
    d.spawned("decode", 1, 0.0)
    d.health("decode", True, "", 0.0)
    d.stop("asked", 100.0, budget)
    assert first(d, Signal, "decode", LEFT) == pytest.approx(holds, abs=0.11)


@pytest.mark.parametrize(
    ("text", "found"),
    [("115\n", 115.0), ("25", None), ("3", None), ("-5", None), ("", None), ("nan", None), ("inf", None),
     ("soon", None), (None, None)],
)  # fmt: skip
def test_what_the_batch_script_leaves(text: str | None, found: float | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "stop_seconds").write_text(text)
    assert stop_budget(plan(process(), log_dir=str(tmp_path), stop_timeout=PLANNED)) == found
