"""The benchmark's own arithmetic: what counts as lost, joined, never, missed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.lines import Counts, count_lines
from bench.supervision import rows
from bench.table import RUNNER, Row, goals, markdown

GOOD = {
    "first_spawn": (0.2, 1.2),
    "dependent": (0.05, None),
    "crash": (0.03, 5.0),
    "term_idle": (0.001, 0.5),
    "term_blocked": (0.001, None),
    "rate_print": (300e3, 250e3),
    "rate_raw": (9e6, 9e6),
    "lost": (0, 2),
    "joined": (0, 2),
    "rss": (31.0, 25.0),
    "pss": (24.0, 15.0),
}


def measured(**changed: float | None) -> dict[str, Row]:
    """Rows with one good sample each; `changed` replaces the runner's."""
    found = rows()
    for key, (ours, theirs) in GOOD.items():
        found[key].add(RUNNER, changed.get(key, ours))
        found[key].add("supervisord", theirs)
    return found


def text(*numbers: int) -> bytes:
    """Lines as the writer writes them, with a forwarder's prefix."""
    return b"".join(b"w | line %07d " % n + b"x" * 66 + b"\n" for n in numbers)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (text(0, 1, 2), Counts(0, 0)),
        (b"runner | w started\n" + text(2, 0, 1), Counts(0, 0)),
        (text(0, 2), Counts(1, 0)),
        (text(0, 1, 2).replace(b"\n", b"", 1), Counts(2, 1)),
        (text(0, 1)[:-1] + b"2026 INFO spawned\n" + text(2), Counts(1, 1)),
        (text(0, 1, 1, 2), Counts(0, 1)),
        (b"", Counts(3, 0)),
    ],
)
def test_lines_are_counted_one_by_one(data: bytes, expected: Counts) -> None:
    assert count_lines(data, re.compile(rb"w \| "), 3) == expected


def test_all_goals_are_reached_with_good_figures() -> None:
    found = goals(measured(), ([0.07] * 3, [0.07] * 3))
    assert [goal.text for goal in found if not goal.reached] == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("first_spawn", 0.61),
        ("dependent", 0.1),
        ("crash", None),
        ("term_idle", 0.2),
        ("term_blocked", None),
        ("rate_print", 199e3),
        ("rate_raw", 7e6),
        ("lost", 1),
        ("joined", 1),
        ("rss", 50.1),
    ],
)
def test_each_goal_can_be_missed(key: str, value: float | None) -> None:
    missed = [goal for goal in goals(measured(**{key: value}), None) if not goal.reached]
    assert len(missed) == 1


def test_a_slower_request_path_is_missed() -> None:
    assert [g.reached for g in goals(measured(), ([0.08] * 3, [0.07] * 3))][-1] is False


def test_what_mostly_did_not_happen_is_never_and_what_cannot_is_a_dash_with_its_reason() -> None:
    found = rows()
    for sample in (None, 0.001, None):
        found["term_blocked"].add("supervisord", sample)
    table = markdown([found["term_blocked"], found["dependent"]], [RUNNER, "supervisord"])
    assert "| never |" in table
    *_, note = re.findall(r"\| - (\[\d+\])", table)
    assert f"{note} has no notion of readiness" in table


def test_the_documented_table_has_every_row_of_the_benchmark() -> None:
    page = Path(__file__).parents[2] / "docs" / "benchmarks.md"
    documented = page.read_text()
    assert [row.title for row in rows().values() if f"| {row.title} |" not in documented] == []
