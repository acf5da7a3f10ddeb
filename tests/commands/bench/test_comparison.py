"""Two reports side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from entrypoint.commands.bench import comparison, report
from entrypoint.commands.bench.results import Run
from entrypoint.commands.bench.suite import load_suite
from entrypoint.errors import ConfigError


def made(*throughputs: float, ttft: float = 50.0, state: str = "complete", **context: Any) -> dict[str, Any]:
    """A report of `quick`, repeated once for each throughput, as it is read back from its file."""
    runs = tuple(
        Run(
            test="quick", repeat=number, state="complete", reason=None, started="2026-01-01T00:00:00+00:00",
            seconds=9.0, measured_seconds=3.0, succeeded=20, failed=0, errors=(), output_tokens=1280,
            server_tokens=1280, metrics={"output_throughput": value, "time_to_first_token_p50": ttft},
        )
        for number, value in enumerate(throughputs, 1)
    )  # fmt: skip
    around = {
        "time": "2026-01-01T00:00:00+00:00", "url": "http://h:8000", "model": "glm-4.7", "node": "n1",
        "tokenizer": "/m",
        "command": "glm47-runner bench quick", "versions": {"aiperf": "0.13.0"}, "deployment": [], **context,
    }  # fmt: skip
    reason = None if state == "complete" else "ended by SIGINT"
    whole = report.Report(load_suite("quick"), len(throughputs), around, runs, state, reason)
    data = json.loads(json.dumps(whole.to_jsonable()))
    assert isinstance(data, dict)
    return data


def verdicts(a: dict[str, Any], b: dict[str, Any]) -> dict[str, str]:
    return {d.metric: d.verdict for d in comparison.compare(a, b, ("A", "B")).differences}


def test_more_tokens_per_second_are_better_and_more_milliseconds_worse() -> None:
    a, b = made(100, 101, 99), made(200, 201, 199, ttft=70.0)
    assert verdicts(a, b) == {"output_throughput": "better", "time_to_first_token_p50": "worse"}
    assert verdicts(b, a) == {"output_throughput": "worse", "time_to_first_token_p50": "better"}


def test_what_lies_within_the_noise_is_the_same() -> None:
    assert verdicts(made(100, 110, 90), made(105, 115, 95))["output_throughput"] == "same"


def test_without_repeats_there_are_ratios_only() -> None:
    found = comparison.compare(made(100), made(150), ("A", "B"))
    assert found.differences[0].ratio == 1.5
    assert {d.verdict for d in found.differences} == {"unknown"}
    assert "The noise between runs is not known: measure with --repeat 3" in comparison.text(found)


def test_what_makes_it_doubtful_is_said() -> None:
    b = made(100, state="interrupted", node="n2", versions={"aiperf": "0.11.0"})
    b["suite"]["tests"][0]["osl"] = 32
    warnings = comparison.compare(made(100), b, ("one", "two")).warnings
    assert warnings == (
        "two is not whole: interrupted: ended by SIGINT",
        "quick was not asked for in the same way: osl is 64 in A, 32 in B",
        "the node differs: n1 in A, n2 in B",
        "aiperf differs: 0.13.0 in A, 0.11.0 in B",
    )


def test_the_text_is_an_aligned_table() -> None:
    text = comparison.text(comparison.compare(made(100, 101, 99), made(200, 201, 199), ("A", "B")))
    assert "B is better in 1 and worse in 0 of 2 numbers by more than the noise" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(row) for row in rows}) == 1
    assert [cell.strip() for cell in rows[2].split("|")][1:-1] == [
        "Output tokens", "tokens/s", "100", "200", "2.000", "± 2.27", "better",
    ]  # fmt: skip


def test_reports_that_share_no_test() -> None:
    other = made(100)
    other["summary"] = {"mixed": other["summary"]["quick"]}
    with pytest.raises(
        ConfigError, match=r"^cannot compare A and B: no test was measured in both \(quick; mixed\): "
    ):
        comparison.compare(made(100), other, ("A", "B"))


def test_what_is_not_a_report(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "report.json").write_text("{")
    (tmp_path / "old.json").write_text('{"format": 0}')
    for path, line in (
        (tmp_path / "none", "No such file or directory: give a directory that `bench` made"),
        (tmp_path / "bad", "it is not JSON: give a directory that `bench` made"),
        (tmp_path / "old.json", "it is not one of format 1: measure again with this release"),
    ):
        with pytest.raises(ConfigError) as caught:
            comparison.load(path)
        assert str(caught.value).startswith("cannot read report: ") and str(caught.value).endswith(line)
