"""How long a start still takes, by the starts before it; and what is kept of them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from entrypoint.supervise.status import starts
from tests.support.plans import plan, process
from tests.support.runner import ROOT, Runner, until

USUAL = {"starting": 20.0, "weights": 200.0, "capture": 600.0}
STARTS = [{"ready": 840.0 + n, "phases": USUAL} for n in (0, 0, 900)]
"""20 s belong to no phase; the third began with a cold cache."""


def status(uptime: float, phase: str | None = None, **spent: float) -> dict[str, Any]:
    return {
        "started": False, "uptime": uptime,
        "processes": [{"phase": None, "phase_seconds": {}}, {"phase": phase, "phase_seconds": spent}],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("seen", "seconds"),
    [
        (status(0), 840),
        (status(20, "starting", starting=20), 820),
        (status(120, "weights", starting=20, weights=100), 720),
        (status(240, "capture", starting=20, weights=100, capture=0), 600),  # quicker than usual so far
        (
            status(540, "weights", starting=20, weights=500),
            600,
        ),  # slower than usual: the rest is still to come
        (status(840, "capture", starting=20, weights=200, capture=600), 0),
        (status(2000, "capture", starting=20, weights=200, capture=1760), 0),
        (status(100, "capture", capture=100), 500),  # a log that begins late
        (
            status(120, "autotune", starting=20, weights=80, autotune=20),
            600,
        ),  # a phase that was not there before
    ],
)
def test_what_is_left(seen: dict[str, Any], seconds: float) -> None:
    assert starts.remaining(seen, STARTS) == pytest.approx(seconds, abs=20)


def test_without_phases_the_whole_counts() -> None:
    before = [{"ready": 30.0, "phases": {}}]
    assert starts.remaining(status(10), before) == 20
    assert starts.remaining(status(50), before) == 0


def test_nobody_guesses() -> None:
    assert starts.remaining(status(10), []) is None
    assert starts.remaining(status(10) | {"started": True}, STARTS) is None


@pytest.mark.parametrize(
    "text",
    ["", "{}", "null", "[1, null, {}]", '[{"ready": "soon", "phases": {}}]', '[{"ready": 3}]',
     '[{"ready": 3, "phases": {"weights": "long"}}]', "\x00", '[{"ready": 3, "phases": []}]'],
)  # fmt: skip
def test_a_spoilt_file_is_no_history(tmp_path: Path, text: str) -> None:
    (tmp_path / "starts.json").write_text(text)
    assert starts.read(tmp_path / "starts.json") == []


def test_only_the_last_starts_are_kept(tmp_path: Path) -> None:
    made = plan(process("decode"), cache_dir=str(tmp_path))
    for number in range(starts.KEPT + 3):
        starts.record(made, lambda number=number: {**status(number), "ready": True})  # type: ignore[misc]
    assert [start["ready"] for start in starts.read(starts.file_of(made))] == [3, 4, 5, 6, 7]


def test_ranks_and_roles_have_histories_of_their_own(tmp_path: Path) -> None:
    one = plan(process("decode"), cache_dir=str(tmp_path))
    files = {
        starts.file_of(p)
        for p in (one, plan(process("prefill"), cache_dir=str(tmp_path)),
                  *(plan(process("decode"), cache_dir=str(tmp_path), rank=r, nnodes=2) for r in (0, 1)))
    }  # fmt: skip
    assert len(files) == 4
    assert starts.file_of(plan(process("decode"))) is None


def test_a_cache_that_cannot_be_written_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    starts.record(plan(process("x"), cache_dir=str(tmp_path / "file")), lambda: {**status(1), "ready": True})


def test_a_runner_keeps_its_start(tmp_path: Path) -> None:
    made = plan(process("engine"), cache_dir=str(tmp_path / "cache"))
    path = starts.file_of(made)
    assert path is not None
    with Runner.of_plan(made, tmp_path):
        until(path.exists, "the record of the start")
    assert json.loads(path.read_text())[0]["ready"] < 20
    assert threading.active_count() < 50


def test_a_start_loads_nothing_of_the_page() -> None:
    names = [
        f"entrypoint.supervise.status.{name}" for name in ("pages", "view", "deployment", "starts", "access")
    ]
    code = "import sys, entrypoint.run.supervised as r; r.import_supervisor(); "
    code += f"print([n for n in {names} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "[]\n"
