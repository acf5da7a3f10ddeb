"""Which node is slow among many, by random speeds: a real laggard is named, and nobody else ever."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from entrypoint.supervise.lifecycle.slow import LATE, Place, places_of, slow, who

NODES, PER_NODE, USUAL = 24, 1, 120.0
SEEDS = range(200)


def places(took: list[list[float]], now: float, worker: str = "decode worker 0") -> list[Place]:
    """Nodes whose ranks take so many seconds each, at `now` seconds after they all began."""
    return [
        Place(
            node=f"n{number}",
            worker=worker,
            ranks=tuple(range(number * len(each), (number + 1) * len(each))),
            ended=tuple((seconds, now - seconds) for seconds in each if seconds <= now),
            open=sum(seconds > now for seconds in each),
            elapsed=now,
        )
        for number, each in enumerate(took)
    ]


def named(took: list[list[float]]) -> set[str]:
    """Who is ever named in a start, looked at every second until the slowest is through."""
    found: set[str] = set()
    for now in range(int(max(map(max, took))) + 2):
        found |= {each.place.node for each in slow("weights", places(took, float(now)))}
    return found


def speeds(source: random.Random, nodes: int, per_node: int, sigma: float = 0.1) -> list[list[float]]:
    return [[source.lognormvariate(0, sigma) * USUAL for _ in range(per_node)] for _ in range(nodes)]


@pytest.mark.parametrize("sigma", (0.0, 0.02, 0.1, 0.2))
def test_a_noisy_start_names_nobody(sigma: float) -> None:
    """In one start of a hundred at most, where the last of 24 mostly takes 1.5 times what the median does."""
    wrong = [seed for seed in SEEDS if named(speeds(random.Random(seed), NODES, PER_NODE, sigma))]
    assert len(wrong) <= (2 if sigma == 0.2 else 0), wrong


@pytest.mark.parametrize("seed", SEEDS)
def test_one_that_takes_three_times_as_long_is_named_alone(seed: int) -> None:
    source = random.Random(seed)
    took = speeds(source, NODES, PER_NODE)
    laggard = source.randrange(NODES)
    took[laggard] = [3.5 * USUAL]
    assert named(took) == {f"n{laggard}"}


@pytest.mark.parametrize("seed", range(50))
def test_three_slow_ones_of_24_are_all_named(seed: int) -> None:
    source = random.Random(seed)
    took = speeds(source, NODES, PER_NODE)
    laggards = source.sample(range(NODES), 3)
    for number in laggards:
        took[number] = [4 * USUAL + number]
    assert named(took) == {f"n{number}" for number in laggards}


@pytest.mark.parametrize("factor", (1, 5, 30))
@pytest.mark.parametrize("nodes", (1, 2, 6, 24))
def test_where_all_are_equally_slow_nobody_is_named(factor: int, nodes: int) -> None:
    for seed in range(20):
        took = speeds(random.Random(seed), nodes, 4, 0.05)
        assert not named([[factor * seconds / 10 for seconds in each] for each in took])


def test_where_most_are_slow_nobody_is_named() -> None:
    assert not named([[10.0], [400.0], [410.0], [420.0]])


def test_short_steps_are_nobodys_delay() -> None:
    """Ten times as long, and yet nobody waits for long."""
    assert not named([[1.0], [1.0], [1.0], [LATE - 1]])
    assert named([[1.0], [1.0], [1.0], [LATE + 3]]) == {"n3"}


def test_of_two_nodes_the_other_one_is_waited_for() -> None:
    (found,) = slow("weights", places([[60.0], [200.0]], 91.0))
    assert found.line(2, "02:11:40Z", ["it reads 0.2 GB/s, the other 2.1 GB/s"]) == (
        "rank 1 of 2 (node n1) is slow since 02:11:40Z: loading weights for 91 s, the other 1 took 60 s and "
        "waits: it reads 0.2 GB/s, the other 2.1 GB/s"
    )
    assert not [*slow("weights", places([[60.0], [200.0]], 89.0))], "less than half as long again"


def test_a_rank_that_was_started_again_has_its_time() -> None:
    """It is compared by what it takes itself, not by when the others were through."""
    others = places([[30.0], [31.0], [32.0]], 500.0)
    again = Place("n9", "decode worker 0", (3,), (), 1, elapsed=20.0)
    assert not [*slow("starting", [*others, again])]
    assert [each.place.node for each in slow("starting", [*others, replace(again, elapsed=60.0)])] == ["n9"]


def test_other_workers_do_not_wait() -> None:
    together = places([[30.0], [30.0], [99.0]], 70.0)
    (found,) = slow("weights", [replace(p, worker=f"decode worker {p.node}") for p in together])
    assert found.line(1, "x", []) == (
        "rank 2 of 1 (node n2) is slow since x: loading weights for 70 s, the other 2 took 30 s"
    )


def test_who() -> None:
    all_of = Place("n4", "w", (12, 13, 14, 15), (), 4, 1.0)
    assert who(all_of, 24) == "ranks 12-15 of 24 (node n4)"
    assert who(replace(all_of, open=1, ended=((1.0, 1.0),) * 3), 24) == "1 of ranks 12-15 of 24 (node n4)"
    assert who(replace(all_of, node="", ranks=(-1,), open=1), 1) == "a rank"


def test_what_strangers_say_is_no_place() -> None:
    step = {"ended": [[1.0, 2.0]], "open": 0, "elapsed": 9.0, "seen": {"looked": 3}, "progress": "1 of 2"}
    good = {"pace": {"ranks": [0], "steps": {"weights": step}}}
    assert places_of("n0", "w", good, {"machine": {"steal": 0.1}, "gpus": None}, "weights") is not None
    bads: tuple[Any, ...] = (
        "x",
        None,
        [],
        {"weights": {**step, "ended": [1]}},
        {"weights": {**step, "seen": 4}},
    )
    for bad in bads:
        assert places_of("n0", "w", {"pace": {"ranks": [0], "steps": bad}}, {}, "weights") is None
    assert places_of("n0", "w", {"pace": None}, {}, "weights") is None
    assert places_of("n0", "w", good, "x", "weights") is None  # type: ignore[arg-type]
