"""What is written down as it changes; a peer's clock that is off is told once."""

from __future__ import annotations

from typing import Any

from entrypoint.supervise.status.history import History


def status(offset: float, trip: float = 0.01) -> dict[str, Any]:
    clocks = {"n2": {"offset": offset, "round_trip": trip}}
    whole = ("version", "node", "roles", "rank", "nnodes", "reason", "exit_code")
    return {"state": "ready", "processes": [], "clocks": clocks, **dict.fromkeys(whole)}


def test_a_clock_that_is_off_is_told_once_and_when_it_changes() -> None:
    said: list[str] = []
    history = History(lambda event: None, said.append)
    for offset in (0.0, 0.4, -1.9, 300.2, 300.3, 299.0, 301.9):
        history.turn(status(offset))
    (line,) = said
    assert line.startswith("the clock of n2 is 300.2 s ahead of this node's: "), said
    history.turn(status(0.1))
    history.turn(status(0.2))
    assert said[1:] == ["the clock of n2 is right again"]
    history.turn(status(-90.0))
    assert said[2].startswith("the clock of n2 is 90.0 s behind this node's: ")


def test_a_slow_answer_is_no_skew() -> None:
    said: list[str] = []
    history = History(lambda event: None, said.append)
    history.turn(status(2.5, trip=3.0))
    assert said == []
    history.turn(status(5.5, trip=3.0))
    assert len(said) == 1
