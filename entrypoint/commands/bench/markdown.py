"""The report as Markdown, and the lines that the terminal shows. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from entrypoint.commands.bench.report import Report
from entrypoint.commands.bench.results import METRICS, Run
from entrypoint.commands.bench.statistic import Sample
from entrypoint.commands.bench.suite import BenchTest

NONE = "-"
"""Stands for a number that there is none of."""
AGREES = 0.02
"""Difference between AIPerf's and the frontend's count of tokens that needs no remark."""
COLUMNS = (
    ("output_throughput", "Output tok/s"),
    ("request_throughput", "Req/s"),
    ("goodput", "Good req/s"),
    ("time_to_first_token_p50", "TTFT p50 ms"),
    ("time_to_first_token_p99", "TTFT p99 ms"),
    ("inter_token_latency_p50", "ITL p50 ms"),
    ("inter_token_latency_p99", "ITL p99 ms"),
    ("request_latency_p50", "Latency p50 ms"),
)
PLOTS = {
    "throughput.png": "Output tokens per second against concurrency",
    "time-to-first-token.png": "Time to first token against concurrency",
    "inter-token-latency.png": "Inter-token latency, percentiles",
    "time-to-first-token-percentiles.png": "Time to first token, percentiles",
}
"""What each picture shows, in the order of the report."""


def one_line(run: Run, test: BenchTest) -> str:
    """What came of one run, for the terminal."""
    if run.state != "complete" and not run.succeeded:
        return f"{run.state}: nothing measured" + (f": {run.reason}" if run.reason else "")
    values = run.metrics
    words = [f"{run.succeeded} of {test.requests} requests"]
    if run.failed:
        words.append(f"{run.failed} failed")
    told = {
        "output_throughput": "output tok/s",
        "time_to_first_token_p50": "ms to first token (p50)",
        "inter_token_latency_p50": "ms between tokens (p50)",
    }
    words += [f"{number(values[key])} {name}" for key, name in told.items() if key in values]
    return ("" if run.state == "complete" else f"{run.state}: ") + ", ".join(words)


def number(value: float) -> str:
    """Three significant digits at least, thousands separated."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def markdown(report: Report) -> str:
    """The report for people."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    context, tests = report.context, {t.name: t for t in report.suite.tests}
    yield f"# Benchmark `{report.suite.name}` of {context['model']}"
    yield ""
    yield f"{context['time']} · {context['url']} · {_verdict(report)}"
    yield ""
    yield "## Results"
    yield ""
    summary = report.summary()
    if summary:
        several = ", mean ± standard deviation" if report.repeat > 1 else ""
        yield f"Latencies in milliseconds, tokens as the server counts them{several}."
        yield ""
        rows = [("Test", "Load", "Tokens in → out", "Requests", *(title for _, title in COLUMNS))]
        for name, found in summary.items():
            runs = [run for run in report.runs if run.test == name]
            rows.append((
                name, tests[name].load, tests[name].lengths, _requests(runs, tests[name]),
                *(_cell(found.get(key)) for key, _ in COLUMNS),
            ))  # fmt: skip
        yield from table(rows)
    else:
        yield "Nothing was measured."
    yield ""
    yield from _remarks(report)
    for name in report.plots:
        yield f"![{PLOTS[name]}]({name})"
        yield ""
    if summary:
        yield from _all_numbers(report, summary)
    yield from _settings(report)
    yield from _deployment(context)


def _verdict(report: Report) -> str:
    words = {"complete": "complete", "running": "**not finished**"}
    state = words.get(report.state, f"**{report.state}**")
    return f"{state}: {report.reason}" if report.reason else state


def _requests(runs: list[Run], test: BenchTest) -> str:
    """Answered of asked for; `2 x 20` when it was so in each of two runs."""
    failed = sum(run.failed for run in runs)
    whole = all(run.succeeded == test.requests for run in runs)
    times = f"{len(runs)} x " if len(runs) > 1 else ""
    if whole:
        return f"{times}{test.requests}"
    text = f"{sum(run.succeeded for run in runs)} of {times}{test.requests}"
    return text + (f", {failed} failed" if failed else "")


def _cell(found: Sample | None) -> str:
    if found is None:
        return NONE
    return number(found.mean) + (f" ± {number(found.stdev)}" if found.stdev is not None else "")


def _remarks(report: Report) -> Iterator[str]:
    lines = []
    for run in report.runs:
        name = f"{run.test}, run {run.repeat}" if report.repeat > 1 else run.test
        lines += [f"- {name}: {count} x {error}" for error, count in run.errors]
        if run.from_records:
            lines.append(
                f"- {name}: AIPerf wrote no summary; the numbers come from its records of single requests."
            )
        if run.server_tokens is not None and run.output_tokens:
            off = run.server_tokens / run.output_tokens - 1
            if abs(off) > AGREES:
                lines.append(
                    f"- {name}: the frontend counted {run.server_tokens:,} output tokens, AIPerf "
                    f"{run.output_tokens:,} ({off:+.1%}): somebody else used the deployment, or several "
                    "frontends share the address."
                )
    if any(run.errors for run in report.runs):
        lines.append("- Rates are over the whole time, that in which requests failed included.")
    checked = [run for run in report.runs if run.server_tokens is not None and run.output_tokens]
    if checked and not lines:
        ours, theirs = sum(r.output_tokens or 0 for r in checked), sum(r.server_tokens or 0 for r in checked)
        lines.append(
            f"- The frontend's own counter agrees: {theirs:,} output tokens, AIPerf counted {ours:,} "
            f"({theirs / ours - 1:+.2%})."
        )
    if lines:
        yield from ("## Remarks", "", *lines, "")


def _all_numbers(report: Report, summary: Mapping[str, Mapping[str, Sample]]) -> Iterator[str]:
    yield from ("## All numbers", "")
    rows: list[tuple[str, ...]] = [("", "Unit", *summary)]
    for metric in METRICS:
        cells = [_cell(found.get(metric.key)) for found in summary.values()]
        if any(cell != NONE for cell in cells):
            rows.append((metric.title, metric.unit, *cells))
    yield from table(rows)
    yield ""


def _settings(report: Report) -> Iterator[str]:
    yield from ("## What was asked for", "")
    names = [t.name for t in report.suite.tests]
    rows: list[tuple[str, ...]] = [("Setting", *names)]
    for key in BenchTest.model_fields:
        values = [getattr(test, key) for test in report.suite.tests]
        if key not in ("name", "mix") and any(value not in (None, (), {}, "") for value in values):
            rows.append((f"`{key}`", *map(_setting, values)))
    if any(test.mix for test in report.suite.tests):
        rows.append(("`mix`", *(test.lengths if test.mix else NONE for test in report.suite.tests)))
    yield from table(rows)
    yield ""
    times = "once" if report.repeat == 1 else f"{report.repeat} times"
    yield f"Each test was to run {times}. Streaming was on. As called:"
    yield ""
    yield from ("```", str(report.context.get("command", "")), "```", "")
    if report.runs:
        yield from ("The first test's command:", "", "```", shlex.join(report.runs[0].command), "```", "")


def _setting(value: Any) -> str:
    if value is None or value in ((), {}, ""):
        return NONE
    if isinstance(value, dict):
        return ", ".join(f"{k} {_setting(v)}" for k, v in value.items())
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _deployment(context: Mapping[str, Any]) -> Iterator[str]:
    yield from ("## Deployment", "")
    rows = [
        ("What", "Value"),
        ("Measured from", str(context["node"])),
        ("Tokenizer", f"`{context['tokenizer']}`"),
    ]
    rows += [(f"{name} (here)", str(version)) for name, version in context["versions"].items()]
    yield from table(rows)
    yield ""
    for runner in context["deployment"]:
        if not runner["reached"]:
            yield f"The runner at {runner['address']} did not tell its plan: {runner['reason']}."
            yield ""
            continue
        rank = f", rank {runner['rank']} of {runner['nnodes']}" if (runner.get("nnodes") or 1) > 1 else ""
        yield f"### {runner['address']}: {', '.join(runner['roles'] or [])}{rank}"
        yield ""
        release = f"glm47-runner {runner['runner']}; the" if runner["runner"] else "The"
        yield f"{release} whole plan is in `report.json`."
        yield ""
        for note in [*runner["plan"].get("notes", ()), *runner["plan"].get("warnings", ())]:
            yield f"- {note}"
        commands = [f"# {p['name']}\n{shlex.join(p['argv'])}" for p in runner["plan"].get("processes", ())]
        yield from ("", "```", *commands, "```", "")


def table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """A Markdown table; the first row is its head, columns of numbers are aligned right."""
    head, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    numeric = [
        bool(body)
        and all(not row[i] or row[i] == NONE or row[i][0].isdigit() or row[i][0] in "+-±" for row in body)
        for i in range(len(head))
    ]
    yield "| " + " | ".join(head) + " |"
    yield "|" + "|".join("--:" if right else "---" for right in numeric) + "|"
    for row in body:
        yield "| " + " | ".join(row) + " |"
