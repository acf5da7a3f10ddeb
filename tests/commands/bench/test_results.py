"""Reading what AIPerf wrote, and saying it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from entrypoint.commands.bench.display import Display
from entrypoint.commands.bench.markdown import markdown, number, one_line
from entrypoint.commands.bench.places import find_tokenizer, make_directory, read_plans
from entrypoint.commands.bench.report import Report
from entrypoint.commands.bench.results import Progress, Run, read
from entrypoint.commands.bench.server import token_count
from entrypoint.commands.bench.session import failures
from entrypoint.commands.bench.suite import load_suite
from entrypoint.errors import CannotWriteError, ConfigError, ModelError

SECOND = 1_000_000_000


def record(start: float, end: float, ttft: float, tokens: int = 10, **more: Any) -> dict[str, Any]:
    """One line of profile_export.jsonl; times in seconds, `ttft` in milliseconds."""
    values = {
        "time_to_first_token": ttft, "usage_completion_tokens": tokens, "usage_total_tokens": tokens + 90,
        "request_latency": (end - start) * 1000, "good_request_count": 1,
    }  # fmt: skip
    metadata = {
        "benchmark_phase": "profiling", "request_start_ns": start * SECOND, "request_end_ns": end * SECOND,
    }  # fmt: skip
    return {"metadata": metadata, "metrics": {k: {"value": v} for k, v in values.items()}, **more}


REFUSED = {"type": "ClientConnectorError", "cause": "refused"}


def write(directory: Path, *records: dict[str, Any], torn: str = "") -> None:
    (directory / "profile_export.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records) + torn)


def test_records_stand_in_for_a_summary(tmp_path: Path) -> None:
    warmup = record(0, 1, 500)
    warmup["metadata"]["benchmark_phase"] = "warmup"
    write(
        tmp_path,
        warmup,
        record(10, 11, 40),
        record(10, 12, 60),
        record(11, 11, 0, error=REFUSED),
        torn='{"meta',
    )
    measured = read(tmp_path)
    assert measured.from_records
    assert (measured.succeeded, measured.failed, measured.seconds) == (2, 1, 2.0)
    assert measured.errors == (("ClientConnectorError: refused", 1),)
    assert (measured.output_tokens, measured.warmup_tokens) == (20, 10)
    assert measured.metrics["output_throughput"] == 10.0
    assert measured.metrics["total_throughput"] == 100.0
    assert measured.metrics["time_to_first_token_p50"] == 50.0
    assert measured.metrics["time_to_first_token_p90"] == pytest.approx(58.0)
    assert measured.metrics["request_latency_avg"] == pytest.approx(1500.0)


def test_nothing_was_written(tmp_path: Path) -> None:
    measured = read(tmp_path)
    assert (measured.succeeded, measured.failed, measured.metrics) == (0, 0, {})


def test_progress_reads_whole_lines_only(tmp_path: Path) -> None:
    progress = Progress(tmp_path)
    assert not progress.update()
    line = json.dumps(record(0, 1, 40))
    write(tmp_path, record(0, 1, 40), torn=line[:20])
    assert progress.update() and progress.done == 1
    assert not progress.update()
    write(tmp_path, record(0, 1, 40), record(0, 1, 40), record(1, 1, 0, error=REFUSED))
    assert progress.update() and (progress.succeeded, progress.failed) == (2, 1)


def run(**changes: Any) -> Run:
    values: dict[str, Any] = {
        "test": "quick", "repeat": 1, "state": "complete", "reason": None, "started": "", "seconds": 9.0,
        "measured_seconds": 3.0, "succeeded": 20, "failed": 0, "errors": (), "output_tokens": 1280,
        "server_tokens": 1280, "metrics": {"output_throughput": 300.0}, **changes,
    }  # fmt: skip
    return Run(**values)


CONTEXT = {
    "time": "2026-01-01T00:00:00+00:00", "url": "http://h:8000", "model": "glm-4.7", "node": "n1",
    "tokenizer": "/m", "command": "glm47-runner bench quick", "versions": {"aiperf": "0.13.0"},
    "deployment": [{"address": "h:9480", "reached": False, "reason": "Connection refused"}],
}  # fmt: skip


def text(*runs: Run, state: str = "complete", reason: str | None = None) -> str:
    return markdown(Report(load_suite("quick"), 1, CONTEXT, runs, state, reason))


def test_the_report_says_that_the_counters_agree_or_not() -> None:
    assert "The frontend's own counter agrees: 1,280 output tokens, AIPerf counted 1,280 (+0.00%)" in text(
        run()
    )
    assert "the frontend counted 2,560 output tokens, AIPerf 1,280 (+100.0%)" in text(run(server_tokens=2560))
    assert "counter" not in text(run(server_tokens=None))


def test_a_partial_report_says_so_at_its_top() -> None:
    shown = text(run(state="interrupted", succeeded=7), state="interrupted", reason="ended by SIGINT")
    assert "**interrupted**: ended by SIGINT" in shown.splitlines()[2]
    assert "| 7 of 20 |" in shown
    empty = text(state="interrupted", reason="ended by SIGINT")
    assert "Nothing was measured." in empty and "The runner at h:9480 did not tell its plan" in empty


def test_failed_requests_count_against_the_limit() -> None:
    suite = load_suite("quick", changes=["max_failed=0.1"])
    errors = (("HTTP 500: busy", 2),)
    assert failures(suite, [run(succeeded=18, failed=2, errors=errors)]) is None
    assert failures(suite, [run(), run(succeeded=17, failed=3, errors=errors)]) == (
        "3 of 20 requests failed in quick: first: HTTP 500: busy"
    )


def test_one_line_of_a_run() -> None:
    (test,) = load_suite("quick").tests
    assert one_line(run(), test) == "20 of 20 requests, 300 output tok/s"
    lost = run(state="server lost", succeeded=0, reason="refused")
    assert one_line(lost, test) == "server lost: nothing measured: refused"


def test_numbers_keep_three_digits() -> None:
    assert [number(v) for v in (0.1234, 5.678, 12.345, 123.4, 4321.0)] == [
        "0.12",
        "5.68",
        "12.3",
        "123",
        "4,321",
    ]


def test_a_log_gets_quiet_lines(tmp_path: Path) -> None:
    stream = io.StringIO()
    display = Display(stream)
    display.begin("1/1 quick", 20, "4 at a time")
    for _ in range(50):
        display.update(Progress(tmp_path))
    display.end("done")
    assert stream.getvalue().splitlines() == [
        "bench: 1/1 quick: 4 at a time, 20 requests",
        "bench: 1/1 quick: done",
    ]


def test_token_counters_of_one_model() -> None:
    page = (
        "# TYPE dynamo_frontend_output_tokens_total counter\n"
        'dynamo_frontend_output_tokens_total{model="glm-4.7"} 1e3\n'
        'dynamo_frontend_output_tokens_total{model="other"} 7\n'
        'dynamo_frontend_output_sequence_tokens_sum{model="glm-4.7"} 5\n'
    )
    assert token_count(page, "glm-4.7") == 1000
    assert token_count(page.replace("tokens_total", "x"), "glm-4.7") == 5
    assert token_count("", "glm-4.7") is None


def test_the_tokenizer_is_looked_for_where_the_deployment_has_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "tokenizer.json").touch()
    plans: list[dict[str, Any]] = [
        {"reached": False},
        {"reached": True, "plan": {"model_source": str(tmp_path / "a")}},
    ]
    assert find_tokenizer(None, "/model", plans) == str(tmp_path / "a")
    assert find_tokenizer(None, str(tmp_path / "a"), []) == str(tmp_path / "a")
    with pytest.raises(ModelError, match=f"^cannot find the model's tokenizer: {tmp_path}: give a directory"):
        find_tokenizer(str(tmp_path), str(tmp_path / "a"), plans)


def test_a_report_is_not_written_over(tmp_path: Path) -> None:
    made = make_directory(tmp_path / "a" / "b")
    assert (made / "aiperf").is_dir()
    with pytest.raises(CannotWriteError, match=r"it is not empty: give another --output$"):
        make_directory(made)
    with pytest.raises(CannotWriteError, match="set --output or GLM47_BENCH_DIR to a directory"):
        make_directory(Path("/proc/none"))


def test_a_plan_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text('{"roles": ["single"], "processes": [], "model_source": "/m"}')
    (found,) = read_plans([file])
    assert (found["reached"], found["roles"], found["plan"]["model_source"]) == (True, ["single"], "/m")
    shown = markdown(Report(load_suite("quick"), 1, {**CONTEXT, "deployment": [found]}, (), "complete", None))
    assert f"### {file}: single" in shown and "The whole plan is in `report.json`." in shown
    for text_, why in (("[]", "it is not a plan"), ("{", "it is not a plan")):
        file.write_text(text_)
        with pytest.raises(ConfigError, match=f"^cannot read --plan: {file}: {why}: give what"):
            read_plans([file])
