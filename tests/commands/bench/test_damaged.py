"""Profiles, reports and AIPerf files that were edited, cut, or are of another release: no traceback."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from entrypoint.commands.bench import comparison
from entrypoint.commands.bench.results import Progress, read
from entrypoint.commands.bench.suite import PROFILES, load_suite
from entrypoint.errors import ConfigError
from tests.commands.bench.test_comparison import made
from tests.commands.bench.test_results import REFUSED, record
from tests.support.mutated import mutated

SUMMARY: dict[str, Any] = {
    "request_count": {"avg": 20.0}, "benchmark_duration": {"avg": 4.0},
    "total_usage_completion_tokens": {"avg": 1280.0}, "output_token_throughput": {"avg": 320.0},
    "time_to_first_token": {"p50": 40.0, "p99": 90.0},
    "error_summary": [{"error_details": REFUSED, "count": 2}],
}  # fmt: skip
RECORDS = [record(10, 11, 40), record(10, 12, 60), record(11, 11, 0, error=REFUSED)]


def lines(error: ConfigError) -> None:
    for line in error.problems:
        assert line.startswith("cannot ") and "\n" not in line and "\x1b" not in line


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("name", ["quick", "full"])
def test_a_profile(name: str, seed: int, tmp_path: Path) -> None:
    data = json.loads((PROFILES / f"{name}.json").read_text())
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(mutated(data, random.Random(seed))))
    try:
        assert load_suite("x", path).tests
    except ConfigError as error:
        lines(error)


@pytest.mark.parametrize("seed", range(120))
def test_a_report(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(mutated(made(100, 110, 90), random.Random(seed))))
    try:
        found = comparison.compare(made(100, 105), comparison.load(path), ("A", "B"))
        assert comparison.text(found)
    except ConfigError as error:
        lines(error)


@pytest.mark.parametrize("seed", range(120))
def test_what_aiperf_wrote(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    if chance.random() < 0.7:
        (tmp_path / "profile_export_aiperf.json").write_text(json.dumps(mutated(SUMMARY, chance)))
    records = [mutated(entry, chance) if chance.random() < 0.5 else entry for entry in RECORDS * 3]
    (tmp_path / "profile_export.jsonl").write_text("".join(f"{json.dumps(entry)}\n" for entry in records))
    measured = read(tmp_path)
    assert measured.succeeded >= 0 and measured.failed >= 0
    assert all(isinstance(value, float) for value in measured.metrics.values())
    progress = Progress(tmp_path)
    assert progress.update() and progress.done <= len(records)
