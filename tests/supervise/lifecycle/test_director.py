"""The rules of start, fate, restart and stop, without a process."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.plan.types import Gate, HttpProbe, NatsProbe
from entrypoint.supervise.lifecycle import restarts
from entrypoint.supervise.lifecycle.actions import Action, Kill, Say, Signal, Spawn
from entrypoint.supervise.lifecycle.director import Director
from entrypoint.supervise.lifecycle.states import State
from tests.support.plans import plan, process, server

PROBE = HttpProbe("http://127.0.0.1:1/")


def spawned(actions: list[Action]) -> list[str]:
    return [a.name for a in actions if isinstance(a, Spawn)]


def signalled(actions: list[Action]) -> list[str]:
    return [a.name for a in actions if isinstance(a, Signal) and not a.everything]


def killed(actions: list[Action]) -> list[str]:
    return [a.name for a in actions if isinstance(a, Kill)]


def begin(*processes: object, **fields: object) -> Director:
    return Director(plan(*processes, **fields), 0.0)  # type: ignore[arg-type]


def up(director: Director, now: float = 0.0) -> None:
    """Spawn and make ready everything, in order of need."""
    pid = 100
    actions = director.tick(now)
    while names := spawned(actions):
        actions = []
        for name in names:
            pid += 1
            director.spawned(name, pid, now)
            actions += director.health(name, True, "", now)
    assert director.ready


def test_what_needs_nothing_starts_at_once_and_in_parallel() -> None:
    d = begin(process("a"), process("b"), process("c", needs=("a", "b")))
    assert spawned(d.tick(0.0)) == ["a", "b"]


def test_a_process_starts_when_the_last_of_its_needs_turns_ready() -> None:
    d = begin(process("a", ready=PROBE), process("b", ready=PROBE), process("c", needs=("a", "b")))
    d.tick(0.0)
    d.spawned("a", 1, 0.0)
    d.spawned("b", 2, 0.0)
    assert spawned(d.health("a", True, "", 1.0)) == []
    assert d.wants("c") == ["b"]
    assert spawned(d.health("b", True, "", 2.0)) == ["c"]


def test_a_gate_that_stays_silent_ends_the_start_with_69() -> None:
    gate = Gate("nats", NatsProbe("10.0.0.9", 4222), 300.0, "NATS_SERVER")
    d = begin(process("decode", needs=("nats",)), gates=(gate,))
    assert spawned(d.tick(0.0)) == []
    d.gate("nats", False, "no connection", 10.0)
    assert d.next_deadline() == 300.0
    d.tick(300.0)
    assert d.verdict is not None and d.verdict.code == 69
    assert "NATS_SERVER" in d.verdict.reason and "no connection" in d.verdict.reason
    assert d.finished


def test_a_gate_once_open_stays_open() -> None:
    gate = Gate("nats", NatsProbe("10.0.0.9", 4222), 300.0, "NATS_SERVER")
    d = begin(process("decode", needs=("nats",)), gates=(gate,))
    assert spawned(d.gate("nats", True, "", 5.0)) == ["decode"]
    d.tick(1000.0)
    assert d.verdict is None or d.verdict.code != 69


@pytest.mark.parametrize(("code", "verdict"), [(0, 1), (1, 1), (3, 3), (137, 137), (255, 255)])
def test_a_critical_process_ends_the_container_with_its_code(code: int, verdict: int) -> None:
    d = begin(process("engine"), server("frontend"))
    up(d)
    actions = d.exited("engine", code, 5.0)
    assert signalled(actions) == ["frontend"]
    assert d.verdict is not None and d.verdict.code == verdict
    assert not d.finished
    d.exited("frontend", 0, 6.0)
    d.gone("frontend", 6.0)
    d.gone("engine", 6.0)
    assert d.finished


def test_the_first_cause_decides() -> None:
    d = begin(process("a"), process("b"))
    up(d)
    d.exited("a", 7, 1.0)
    d.exited("b", 9, 1.1)
    assert d.verdict is not None and d.verdict.code == 7


def test_a_server_restarts_with_growing_delays_and_then_gives_up() -> None:
    d = begin(server("etcd"), max_restarts=3)
    now, delays = 0.0, []
    up(d)
    for _ in range(3):
        d.exited("etcd", 4, now)
        d.gone("etcd", now)
        due = d.next_deadline()
        assert due is not None
        delays.append(due - now)
        assert spawned(d.tick(due - 0.01)) == []
        assert spawned(d.tick(due)) == ["etcd"]
        d.spawned("etcd", 1, due)
        now = due + 1
    assert delays == [0.5, 1.0, 2.0]
    d.exited("etcd", 4, now)
    d.gone("etcd", now)
    assert d.verdict is not None and d.verdict.code == 4
    assert "3 restarts" in d.verdict.reason and "GLM47_MAX_RESTARTS" in d.verdict.reason


def test_a_server_that_was_ready_for_long_starts_counting_anew() -> None:
    d = begin(server("etcd"), max_restarts=1)
    now = 0.0
    up(d)
    for _ in range(4):
        d.exited("etcd", 1, now)
        d.gone("etcd", now)
        now += 1.0
        d.tick(now)
        d.spawned("etcd", 1, now)
        d.health("etcd", True, "", now)
        now += restarts.RESET
        d.tick(now)
    assert d.verdict is None
    assert d.procs["etcd"].restarts_total == 4


def test_a_stop_goes_in_reverse_order_of_need_and_in_parallel() -> None:
    d = begin(
        server("etcd"), server("nats"),
        process("decode", needs=("etcd", "nats")),
        server("frontend", needs=("etcd",), stops_before=("decode",)),
    )  # fmt: skip
    up(d)
    assert signalled(d.stop("asked", 10.0)) == ["frontend"]
    assert not d.ready
    d.exited("frontend", 0, 11.0)
    assert signalled(d.gone("frontend", 11.0)) == ["decode"]
    d.exited("decode", 0, 12.0)
    assert sorted(signalled(d.gone("decode", 12.0))) == ["etcd", "nats"]
    for name in ("etcd", "nats"):
        d.exited(name, 0, 13.0)
        d.gone(name, 13.0)
    assert d.finished and d.verdict is not None and d.verdict.code == 0


def test_who_ignores_the_stop_signal_is_killed_after_its_grace_and_that_shows() -> None:
    d = begin(process("engine", grace=3.0), stop_timeout=60.0)
    up(d)
    d.stop("asked", 0.0)
    assert killed(d.tick(2.9)) == []
    assert d.next_deadline() == pytest.approx(3.0)
    assert killed(d.tick(3.0)) == ["engine"]
    d.exited("engine", 137, 3.1)
    d.gone("engine", 3.1)
    assert d.verdict is not None and d.verdict.code == 137 and "engine" in d.verdict.reason


def test_leftovers_get_a_short_grace_and_do_not_spoil_the_verdict() -> None:
    d = begin(process("engine", grace=30.0), stop_timeout=60.0)
    up(d)
    d.stop("asked", 0.0)
    actions = d.exited("engine", 0, 1.0)
    assert Signal("engine", "TERM", everything=True) in actions
    assert not d.finished
    assert killed(d.tick(6.0)) == ["engine"]
    d.gone("engine", 6.1)
    assert d.finished and d.verdict is not None and d.verdict.code == 0


@given(
    graces=st.lists(st.floats(0.1, 500), min_size=1, max_size=6),
    budget=st.floats(0.5, 300),
    chain=st.booleans(),
)
def test_a_stop_never_outlasts_its_budget(graces: list[float], budget: float, chain: bool) -> None:
    """Whatever the graces and the order, and with every process ignoring its signal."""
    specs = [
        process(f"p{i}", grace=g, needs=(f"p{i - 1}",) if chain and i else ()) for i, g in enumerate(graces)
    ]
    d = begin(*specs, stop_timeout=budget)
    up(d)
    now = 1000.0
    actions = d.stop("asked", now)
    for _ in range(100):
        hit = killed(actions)
        for name in hit:
            if d.procs[name].state is State.STOPPING:  # a second KILL is for what the process has left
                d.exited(name, 137, now)
        actions = [a for name in hit if d.procs[name].state is State.LEFTOVERS for a in d.gone(name, now)]
        if d.finished:
            break
        due = d.next_deadline()
        assert due is not None
        now = max(now, due)
        actions += d.tick(now)
    assert d.finished
    assert now - 1000.0 <= budget


def test_asked_again_everything_is_killed_at_once() -> None:
    d = begin(server("etcd"), process("engine", needs=("etcd",), grace=30.0))
    up(d)
    d.stop("asked", 0.0)
    assert sorted(killed(d.kill_all(0.1))) == ["engine", "etcd"]


def test_start_deadline_and_stall_end_with_75_and_say_what_it_was_doing() -> None:
    for fields, at in (({"start_timeout": 100.0}, 100.0), ({"stall_timeout": 50.0}, 70.0)):
        d = begin(process("decode", ready=PROBE, **fields))
        d.tick(0.0)
        d.spawned("decode", 1, 0.0)
        d.doing("decode", "capturing CUDA graphs 5/36")
        d.sign("decode", 20.0)
        d.tick(at - 0.1)
        assert d.verdict is None
        assert d.next_deadline() == pytest.approx(at)
        d.tick(at)
        assert d.verdict is not None and d.verdict.code == 75
        assert "capturing CUDA graphs 5/36" in d.verdict.reason


def test_once_ready_no_start_deadline_applies() -> None:
    d = begin(process("decode", ready=PROBE, start_timeout=10.0, stall_timeout=10.0))
    up(d)
    d.health("decode", False, "hiccup", 50.0)
    d.tick(1000.0)
    assert d.verdict is None and not d.ready


def test_a_frontend_that_never_lists_the_model_is_started_anew_without_costing_a_restart() -> None:
    d = begin(
        process("aggregated", ready=PROBE),
        server("frontend", ready=PROBE, unlisted_timeout=4.0),
        max_restarts=0,
    )
    d.tick(0.0)
    d.spawned("aggregated", 1, 0.0)
    d.spawned("frontend", 2, 0.0)
    d.health("frontend", False, "not listed", 1.0, unlisted=True)
    assert signalled(d.tick(100.0)) == []  # the worker is still loading: nothing to list yet
    d.health("aggregated", True, "", 101.0)
    assert signalled(d.tick(104.0)) == []
    assert d.next_deadline() == pytest.approx(105.0)
    actions = d.tick(105.0)
    assert signalled(actions) == ["frontend"]
    d.exited("frontend", 0, 106.0)
    assert spawned(d.gone("frontend", 106.0)) == ["frontend"]
    d.spawned("frontend", 3, 106.0)
    d.health("frontend", True, "", 108.0)
    assert d.ready and d.verdict is None
    assert d.procs["frontend"].restarts_total == 1


def test_a_worker_that_no_frontend_ever_lists_ends_the_container() -> None:
    """Its registration is lost, and it will not make another: only a new start helps."""
    d = begin(process("aggregated", ready=PROBE), server("frontend", ready=PROBE, unlisted_timeout=4.0))
    d.tick(0.0)
    d.spawned("aggregated", 1, 0.0)
    d.spawned("frontend", 2, 0.0)
    d.health("aggregated", True, "", 0.0)
    now = 0.0
    for _ in range(2):
        d.health("frontend", False, "not listed", now, unlisted=True)
        now += 4.0
        assert signalled(d.tick(now)) == ["frontend"]
        d.exited("frontend", 0, now)
        # It runs from here on, and what was found out about its last life does not count.
        assert spawned(d.gone("frontend", now)) == ["frontend"]
        assert signalled(d.tick(now)) == []
        d.spawned("frontend", 3, now)
    assert d.verdict is None
    d.health("frontend", False, "not listed", now, unlisted=True)
    d.tick(now + 4.0)
    assert d.verdict is not None and d.verdict.code == 75
    assert "nor could it before 2 restarts" in d.verdict.reason


def test_a_frontend_without_workers_beside_it_is_restarted_too() -> None:
    """On the file store, when the store has what it does not find; on etcd nobody asks for it."""
    for limit, restarted in ((4.0, ["frontend"]), (None, [])):
        d = begin(server("frontend", ready=PROBE, unlisted_timeout=limit))
        d.tick(0.0)
        d.spawned("frontend", 1, 0.0)
        d.health("frontend", False, "half read", 1.0, unlisted=True)
        assert signalled(d.tick(4.9)) == []
        assert signalled(d.tick(5.0)) == restarted


def test_a_frontend_that_lists_the_model_but_is_still_warming_up_is_left_alone() -> None:
    d = begin(
        process("aggregated", ready=PROBE),
        server("frontend", ready=PROBE, unlisted_timeout=4.0),
    )
    d.tick(0.0)
    d.spawned("aggregated", 1, 0.0)
    d.spawned("frontend", 2, 0.0)
    d.health("aggregated", True, "", 1.0)
    d.health("frontend", False, "not listed", 2.0, unlisted=True)
    d.health("frontend", False, "its warm-up request is not answered yet", 3.0)
    assert signalled(d.tick(100.0)) == []


def test_losing_readiness_is_told_once_and_does_not_end_anything() -> None:
    d = begin(process("engine", ready=PROBE))
    up(d)
    assert any(isinstance(a, Say) for a in d.health("engine", False, "gone quiet", 10.0))
    assert d.health("engine", False, "gone quiet", 12.0) == []
    assert d.procs["engine"].state is State.RUNNING and not d.ready
    d.health("engine", True, "", 14.0)
    assert d.ready


def test_a_command_that_does_not_exist_ends_the_start() -> None:
    d = begin(server("etcd"))
    d.tick(0.0)
    d.spawn_failed("etcd", 127, "cannot start etcd: /nope: no such file", 0.0)
    assert d.verdict is not None and d.verdict.code == 127 and d.finished


def test_the_plan_is_not_touched() -> None:
    p = plan(process("engine"))
    before = dataclasses.asdict(p)
    d = Director(p, 0.0)
    up(d)
    d.stop("asked", 1.0)
    assert dataclasses.asdict(p) == before


def stopped_while_loading(loading_grace: float | None, *, ready: bool = False) -> tuple[Director, list[str]]:
    """What happens to a worker that puts the stop signal off: (the director, what it said)."""
    d = begin(process("decode", ready=PROBE, grace=30.0, loading_grace=loading_grace), stop_timeout=60.0)
    d.tick(0.0)
    d.spawned("decode", 1, 0.0)
    if ready:
        d.health("decode", True, "", 5.0)
    assert signalled(d.stop("asked to stop", 10.0)) == ["decode"]
    end = d.next_deadline()
    assert end is not None
    assert not killed(d.tick(end - 0.1))
    actions = d.tick(end)
    assert killed(actions) == ["decode"]
    d.exited("decode", 137, end)
    d.gone("decode", end)
    assert d.finished
    return d, [f"{end:g}", *(a.text for a in actions if isinstance(a, Say))]


def test_an_engine_that_still_loads_is_cut_off_early_and_that_is_no_failure() -> None:
    d, said = stopped_while_loading(5.0)
    assert said == ["15", "decode is still loading and is killed"]
    assert d.verdict is not None and d.verdict.code == 0


@pytest.mark.parametrize(("loading_grace", "ready"), [(5.0, True), (None, False)])
def test_any_other_worker_that_must_be_killed_is_a_failed_stop(
    loading_grace: float | None, ready: bool
) -> None:
    d, said = stopped_while_loading(loading_grace, ready=ready)
    assert said == ["40", "decode did not leave in time and is killed"]
    assert d.verdict is not None and d.verdict.code == 137
