"""Which of many ranks is behind, by where each of them stands."""

from __future__ import annotations

import pytest

from entrypoint.supervise.lifecycle.behind import RankPlace, behind, places_of


def place(rank: int, collective: str = "all_reduce", stopped: bool = False) -> RankPlace:
    doing = (
        "is stopped by a signal"
        if stopped
        else f"waits in {collective}"
        if collective
        else "runs: f (a.py:1)"
    )
    return RankPlace(f"n{rank // 4}", f"sglang::scheduler_TP{rank}", stopped, collective, doing)


@pytest.mark.parametrize("rank", [0, 13, 23])
@pytest.mark.parametrize("how", [{"stopped": True}, {"collective": ""}])
def test_one_of_24_is_named_with_its_node_and_how_many_wait(rank: int, how: dict[str, object]) -> None:
    places = [place(n, **(how if n == rank else {})) for n in range(24)]  # type: ignore[arg-type]
    line = behind(places, "02:13:07Z")
    assert line is not None
    assert line.startswith(f"rank {rank} of 24 (node n{rank // 4}) is behind since 02:13:07Z: it ")
    assert line.endswith("; the other 23 of its worker wait")


def test_nobody_is_accused_where_all_wait_for_each_other_or_several_do_not() -> None:
    assert behind([place(n) for n in range(8)], "") is None
    assert behind([place(n, "" if n < 2 else "all_reduce") for n in range(8)], "") is None
    assert behind([place(0, "")], "") is None, "alone, it may just work"
    assert behind([], "") is None


def test_what_another_release_tells_is_left_out() -> None:
    assert places_of("n1", {"ranks": [{"title": "x"}, 3]}) == [] and places_of("n1", None) == []
