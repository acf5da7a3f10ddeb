"""The budget of a stop: never more than all of it, a drain gets what nobody else needs, every stop ends."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrypoint.plan.stop_budget import KEPT, NEEDS, Budget, shares, usable
from entrypoint.plan.types import Drain, Plan
from entrypoint.supervise.lifecycle.actions import Kill, Signal
from entrypoint.supervise.lifecycle.director import Director
from tests.plan.deployments import CONTAINERS, SIX, WITH_NGINX, Container, build, node
from tests.support.plans import plan, process, server

TOTALS = st.floats(0.5, 600)
SECONDS = st.floats(0.0, 300)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[dict[str, float], dict[str, list[str]], dict[str, float]]:
    """(least, later, delay): each process stops before some of those that are named after it."""
    names = [f"p{i}" for i in range(draw(st.integers(1, 6)))]
    least = {name: draw(SECONDS) for name in names}
    later = {a: [b for b in names[i + 1 :] if draw(st.booleans())] for i, a in enumerate(names)}
    return least, later, {name: draw(st.sampled_from([0.0, 1.0])) for name in names}


@given(TOTALS, graphs())
def test_everybody_has_what_is_kept_for_it_and_all_of_it_fits(
    total: float, graph: tuple[dict[str, float], dict[str, list[str]], dict[str, float]]
) -> None:
    least, later, delay = graph
    budget = Budget(total, least, later, delay)
    assert 0 < budget.usable < total
    scale = [(budget.latest_kill(n) - budget.latest_signal(n)) / least[n] for n in least if least[n] > 0.01]
    assert all(s == pytest.approx(scale[0], rel=1e-3) and s <= 1.000001 for s in scale), "all shrink alike"
    for name in least:
        assert -1e-6 <= budget.latest_signal(name) <= budget.latest_kill(name) <= budget.usable
        assert budget.latest_signal(name) >= budget.usable * (1 - KEPT) - 1e-6, "half is for drains"
        for other in later[name]:
            assert budget.latest_kill(name) <= budget.latest_signal(other) + 1e-6


@given(TOTALS, st.sets(st.sampled_from(list(NEEDS)), min_size=1))
def test_a_drain_gets_all_that_others_do_not_need(total: float, kinds: set[str]) -> None:
    held = [kind for kind in NEEDS if kind in kinds]
    found = shares(total, kinds, worker_drains=False)
    needed = sum(NEEDS[kind].kept(total) for kind in held)
    assert needed < usable(total) * KEPT or total < 3, "nothing is scaled in a budget that can be used"
    if needed < usable(total) * KEPT:
        assert found.drain(held[0]) == pytest.approx(usable(total) - needed, abs=0.02)
    for one, other in pairwise(held):
        assert found.gone(one) <= found.drain(other) + 0.02
    for kind in held:
        assert found.least(kind) <= found.grace(kind) + 0.01 and found.grace(kind) < total


def longest_drain(found: Plan, name: str) -> float:
    drain = found.process(name).drain
    assert drain is not None
    return drain.timeout


def test_of_25_seconds_a_frontend_gets_what_the_rest_does_not_take() -> None:
    """2 s for its own end, a worker 6.25 s after 1 s of drain, etcd 1 s, ours 0.5 s."""
    given_25 = {"role": "etcd,frontend,decode", "stop_timeout": 25}
    assert longest_drain(build(Container(given_25)), "frontend") == 14.25
    assert longest_drain(build(Container({"role": "single", "stop_timeout": 25})), "frontend") == 16.25
    alone = Container({"role": "frontend", "head_address": "n", "stop_timeout": 25})
    assert longest_drain(build(alone), "frontend") == 22.5


@pytest.mark.parametrize("total", [5.0, 25.0, 60.0, 600.0])
@pytest.mark.parametrize("index", range(6))
def test_over_the_nodes_of_a_job_everybody_has_its_time(index: int, total: float) -> None:
    """A worker waits for frontends elsewhere, a follower for its leader: what is kept for it stays."""
    found = build(Container({**SIX, "stop_timeout": total}, node(index), facts=WITH_NGINX))
    assert found.job is not None
    for name in found.job.stops_after:
        spec = found.process(name)
        assert spec.least is not None
        follower = spec.leader_hold is not None
        left = usable(total) - found.job.stop_hold - (0.0 if follower else spec.least)
        assert left > -1.001, "not less than it takes for the news to arrive"


# -- what the director makes of it


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    names = [f"p{i}" for i in range(draw(st.integers(1, 5)))]
    specs = []
    for index, name in enumerate(names):
        grace = draw(st.floats(0.1, 400))
        make = draw(st.sampled_from([process, server]))
        drain = Drain("http://127.0.0.1:1/", "in_flight", 0.0, draw(st.floats(0.0, 500)))
        specs.append(
            make(
                name,
                needs=tuple(other for other in names[:index] if draw(st.booleans())),
                grace=grace,
                least=draw(st.one_of(st.none(), st.floats(0.0, grace))),
                drain=draw(st.sampled_from([None, drain])),
                leader_hold=draw(st.sampled_from([None, 40.0])),
            )
        )
    return plan(*specs, stop_timeout=draw(st.floats(0.5, 300)))


@settings(deadline=None)
@given(found=plans(), polite=st.lists(st.booleans(), min_size=5, max_size=5), took=st.floats(0.0, 20))
def test_every_stop_ends_within_its_budget(found: Plan, polite: list[bool], took: float) -> None:
    """Whoever ignores its signal and never answers its last request; the others leave after `took`."""
    d = Director(found, 0.0)
    for action in d.tick(0.0):
        d.spawned(action.name, 1, 0.0)  # type: ignore[union-attr]
    for spec in found.processes:
        if not d.procs[spec.name].alive:
            d.spawned(spec.name, 1, 0.0)
        d.health(spec.name, True, "", 0.0)
    now, leaves = 1000.0, {}
    actions = d.stop("asked", now)
    for _ in range(200):
        for action in actions:
            if isinstance(action, Kill):
                leaves[action.name] = now
            elif isinstance(action, Signal) and not action.everything and polite[int(action.name[1:])]:
                leaves.setdefault(action.name, now + took)
        actions = []
        for name in [n for n, at in leaves.items() if at <= now]:
            del leaves[name]
            actions += [*d.exited(name, 0, now), *d.gone(name, now)]
        if d.finished:
            break
        if not actions:
            due = [*leaves.values(), d.next_deadline() or math.inf]
            now = max(now, min(due))
            actions = d.tick(now)
    assert d.finished
    assert now - 1000.0 <= found.stop_timeout


@pytest.mark.parametrize("name", CONTAINERS)
def test_whoever_ignores_its_signal_takes_nobody_elses_time(name: str) -> None:
    found = build(CONTAINERS[name])
    budget = Director(found, 0.0)
    budget.stop("asked", 0.0)
    stopping = budget.stopping
    assert stopping is not None
    for spec in found.processes:
        for other in (*spec.needs, *spec.stops_before):
            if other in stopping.before:
                least = found.process(other).least
                assert least is not None
                assert stopping.latest_kill(spec.name) + least <= stopping.latest_kill(other) + 1e-6
