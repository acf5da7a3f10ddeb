"""Why a node is slow: only what stands out is said, and nothing is guessed."""

from __future__ import annotations

from typing import Any

import pytest

from entrypoint.supervise.lifecycle.slow import Place
from entrypoint.supervise.lifecycle.slow_why import served, why

SEEN = {"looked": 40.0, "waited": 0.4, "read": 40 * 2.1e9, "looks": 20, "stopped": 0, "storage": 1}
GPU = {"index": 0, "busy": 90, "clock": 1965, "most": 2062, "slowed": []}


def place(node: str = "n0", machine: dict[str, float] | None = None, gpus: Any = (), **seen: Any) -> Place:
    return Place(node, "w", (0,), (), 1, 60.0, seen=SEEN | seen, machine=machine or {}, gpus=tuple(gpus))


OTHERS = [place(f"n{number}", {"steal": 0.0, "pressure_io": 0.01}, [GPU] * 4) for number in range(1, 6)]


def test_what_is_as_with_all_others_says_nothing() -> None:
    assert why(place(), OTHERS) == []
    slow_all = [place(f"n{n}", {"steal": 0.4}, waited=24.0, read=1e6, storage=20) for n in range(6)]
    assert why(slow_all[0], slow_all[1:]) == ["it waited for storage in 20 of 20 looks", "it reads 25 kB/s"]


@pytest.mark.parametrize(
    ("seen", "machine", "told"),
    [
        ({"waited": 24.4}, {}, ["its processes waited 61% of the time for a processor core, the others 1%"]),
        ({"read": 40 * 0.2e9}, {}, ["it reads 0.2 GB/s, the others 2.1 GB/s"]),
        ({"read": 40 * 2e7, "storage": 18}, {},
         ["it waited for storage in 18 of 20 looks", "it reads 20.0 MB/s, the others 2.1 GB/s"]),
        # Who has no processor reads slowly too.
        ({"waited": 30.0, "read": 1e6}, {},
         ["its processes waited 75% of the time for a processor core, the others 1%"]),
        ({"stopped": 15}, {}, ["it was stopped by a signal in 15 of 20 looks"]),
        ({}, {"steal": 0.34}, ["the host took 34% of its node's processor time (steal)"]),
        ({}, {"pressure_io": 0.9}, ["its node waits for storage in 90% of the time (pressure)"]),
        ({"looked": 2.0, "waited": 2.0, "looks": 1, "stopped": 1, "read": 2 * 2.1e9}, {}, []),
    ],
)  # fmt: skip
def test_what_stands_out_is_said(seen: dict[str, Any], machine: dict[str, float], told: list[str]) -> None:
    assert why(place(machine=machine, **seen), OTHERS) == told


def test_clocks_that_differ() -> None:
    held = GPU | {"index": 2, "clock": 345, "slowed": ["hardware slowdown"]}
    assert why(place(gpus=[GPU, held]), OTHERS) == [
        "GPU 2's clock is held at 345 MHz (hardware slowdown), the others 1965"
    ]
    (line,) = why(place(gpus=[GPU | {"clock": 990}]), OTHERS)
    assert line == "GPU 0's clock is held at 990 MHz, the others 1965"


def test_a_clock_that_is_low_since_nothing_runs_is_no_reason() -> None:
    assert why(place(gpus=[GPU | {"clock": 345, "busy": 0}]), OTHERS) == []


def test_a_power_cap_is_usual_where_the_clock_is() -> None:
    capped = GPU | {"slowed": ["power cap"]}
    assert why(place(gpus=[capped]), OTHERS) == []
    (line,) = why(place(gpus=[capped | {"clock": 700}]), OTHERS)
    assert line == "GPU 0's clock is held at 700 MHz (power cap), the others 1965"
    hot = [place(f"n{n}", gpus=[GPU | {"slowed": ["heat (software)"]}]) for n in range(3)]
    assert why(hot[0], hot[1:]) == [], "a hot room is nobody's own fault"


def test_what_gpus_say_may_be_anything() -> None:
    for gpu in ({}, {"clock": "x", "busy": None}, {"slowed": None}, {"slowed": [3]}):
        assert why(place(gpus=[gpu]), OTHERS) == []


def test_an_engine_that_serves() -> None:
    busy = place(looked=30.0, waited=18.0)
    text = "its scheduler waited 60% of the last 30 s for a processor core, the others 1%"
    assert served(busy, OTHERS) == text
    assert served(busy, []) is None, "nobody to compare with"
    assert served(busy, [place(f"n{n}", looked=30.0, waited=9.0) for n in range(3)]) is None
    assert served(place(looked=3.0, waited=3.0), OTHERS) is None
