"""Draws a report's plots: ``python plots.py report.json DIRECTORY``.

It runs in AIPerf's environment, which has matplotlib, and imports nothing of the runner. Every plot is
written that the report has numbers for: against concurrency only when several concurrencies were measured
with the same lengths.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

Test = dict[str, Any]
PERCENTILES = ("p50", "p90", "p99")
COLOURS = {"p50": "#1b6ca8", "p90": "#e0912f", "p99": "#b0413e"}


def main() -> None:
    """Draw every plot that the report has numbers for."""
    report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    directory = Path(sys.argv[2])
    plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False,
                         "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True})  # fmt: skip
    tests = [test for test in report["suite"]["tests"] if test["name"] in report["summary"]]
    groups = against_concurrency(tests)
    subtitle = f"{report['context']['model']}, {report['context']['time'][:16]}Z"
    if groups:
        throughput(groups, report, subtitle, directory / "throughput.png")
        first_token(groups, report, subtitle, directory / "time-to-first-token.png")
    bars(tests, report, "inter_token_latency", "Inter-token latency", subtitle,
         directory / "inter-token-latency.png")  # fmt: skip
    bars(tests, report, "time_to_first_token", "Time to first token", subtitle,
         directory / "time-to-first-token-percentiles.png")  # fmt: skip


def against_concurrency(tests: list[Test]) -> list[list[Test]]:
    """Tests that differ in concurrency only, by their lengths; groups of one are left out."""
    groups: dict[tuple[Any, ...], list[Test]] = {}
    for test in tests:
        if test["concurrency"] is not None and test["request_rate"] is None:
            lengths = (
                test["isl"],
                test["osl"],
                json.dumps(test["mix"]),
                test["isl_stddev"],
                test["osl_stddev"],
            )
            groups.setdefault(lengths, []).append(test)
    several = {k: g for k, g in groups.items() if len({t["concurrency"] for t in g}) > 1}
    return [sorted(group, key=lambda t: t["concurrency"]) for group in several.values()]


def lengths_of(test: Test) -> str:
    """How long a test's prompts and answers are, in tokens."""
    return "mixed lengths" if test["mix"] else f"{test['isl']} tokens in, {test['osl']} out"


def throughput(groups: list[list[Test]], report: Test, subtitle: str, path: Path) -> None:
    """Output tokens per second against concurrency, a line for each pair of lengths."""
    figure, axes = plt.subplots(figsize=(7.5, 4.5))
    for group in groups:
        line(axes, group, report, "output_throughput", lengths_of(group[0]))
    axes.margins(y=0.12)
    axes.set_ylim(bottom=0)
    finish(axes, groups, "Output tokens per second", subtitle)
    if len(groups) > 1:
        axes.legend(frameon=False)
        axes.set_title(f"Output tokens per second\n{subtitle}", fontsize=11)
    save(figure, path)


def first_token(groups: list[list[Test]], report: Test, subtitle: str, path: Path) -> None:
    """Percentiles of the time to first token, in milliseconds, against concurrency."""
    figure, axes = plt.subplots(figsize=(7.5, 4.5))
    styles = ("-", "--", ":", "-.")
    for group, style in zip(groups, styles * len(groups), strict=False):
        for stat in PERCENTILES:
            label = stat if len(groups) == 1 else f"{stat}, {lengths_of(group[0])}"
            line(axes, group, report, f"time_to_first_token_{stat}", label, COLOURS[stat], style)
    axes.margins(y=0.12)
    axes.set_ylim(bottom=0)
    finish(axes, groups, "Time to first token (ms)", subtitle)
    axes.legend(frameon=False)
    save(figure, path)


def line(
    axes: Any,
    group: list[Test],
    report: Test,
    key: str,
    label: str,
    colour: str | None = None,
    style: str = "-",
) -> None:
    """The means of `key` over concurrency, with their standard deviations."""
    points = [
        (t["concurrency"], report["summary"][t["name"]][key])
        for t in group
        if key in report["summary"][t["name"]]
    ]
    if points:
        samples = [sample for _, sample in points]
        spread = [sample["stdev"] or 0 for sample in samples]
        axes.errorbar([x for x, _ in points], [sample["mean"] for sample in samples],
                      yerr=spread if any(spread) else None, marker="o", capsize=4, label=label,
                      color=colour, linestyle=style)  # fmt: skip


def finish(axes: Any, groups: list[list[Test]], what: str, subtitle: str) -> None:
    """Axes and titles of a plot against concurrency."""
    concurrencies = sorted({test["concurrency"] for group in groups for test in group})
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(concurrencies))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xlabel("Requests at a time")
    axes.set_ylabel(what)
    lengths = f"{lengths_of(groups[0][0])}, " if len(groups) == 1 else ""
    axes.set_title(f"{what.partition(' (')[0]}\n{lengths}{subtitle}", fontsize=11)


def bars(tests: list[Test], report: Test, key: str, title: str, subtitle: str, path: Path) -> None:
    """Percentiles of `key`, a group of bars for each test."""
    tests = [test for test in tests if f"{key}_p50" in report["summary"][test["name"]]]
    if not tests:
        return
    figure, axes = plt.subplots(figsize=(max(6.0, 1.6 * len(tests) + 2.0), 4.5))
    width = 0.8 / len(PERCENTILES)
    for number, stat in enumerate(PERCENTILES):
        found = [report["summary"][test["name"]][f"{key}_{stat}"] for test in tests]
        places = [i + (number - 1) * width for i in range(len(tests))]
        spread = [sample["stdev"] or 0 for sample in found]
        drawn = axes.bar(places, [s["mean"] for s in found], width, label=stat, color=COLOURS[stat],
                         yerr=spread if any(spread) else None, capsize=3)  # fmt: skip
        means = [sample["mean"] for sample in found]
        labels = [f"{mean:.3g}" if mean < 1000 else f"{mean:,.0f}" for mean in means]
        axes.bar_label(drawn, labels, fontsize=8, padding=2)
    axes.set_xticks(range(len(tests)), [test["name"] for test in tests])
    axes.set_xlim(-0.7, len(tests) - 0.3)
    axes.margins(y=0.12)
    axes.grid(axis="x", visible=False)
    axes.set_ylabel(f"{title} (ms)")
    axes.set_title(f"{title}\n{subtitle}", fontsize=11)
    axes.legend(frameon=False, ncols=3, loc="upper left", bbox_to_anchor=(0, -0.1))
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    """Write it, and let it go."""
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
