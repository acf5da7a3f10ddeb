"""Two reports side by side: ratios, and which differences are larger than the noise between runs.

Pure, but for `load`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from entrypoint.base.foreign import from_json
from entrypoint.commands.bench.markdown import NONE, number, table
from entrypoint.commands.bench.report import FORMAT, JSON
from entrypoint.commands.bench.results import METRICS
from entrypoint.commands.bench.statistic import CONFIDENCE, Sample, noise
from entrypoint.errors import ConfigError
from entrypoint.plan.table import padded

SAME_SETTINGS = ("title", "max_failed", "request_timeout")
"""Fields of a test that may differ without making its numbers incomparable."""


@dataclass(frozen=True)
class Difference:
    """One number of one test in both reports."""

    test: str
    metric: str
    title: str
    unit: str
    a: Sample
    b: Sample
    ratio: float | None
    """B to A; None when A is 0."""
    noise: float | None
    """How far the means may lie apart by chance; None: not known."""
    verdict: str
    """`better`, `worse`, `same` (B lies within the noise) or `unknown`."""


@dataclass(frozen=True)
class Comparison:
    """Two reports side by side."""

    a: str
    b: str
    differences: tuple[Difference, ...]
    warnings: tuple[str, ...]
    """What makes the comparison doubtful."""

    def to_jsonable(self) -> dict[str, Any]:
        """As JSON-able data."""
        return asdict(self)


def load(path: Path) -> dict[str, Any]:
    """A report, given its directory or its report.json. ConfigError (78) when it is none."""
    file = path / JSON if path.is_dir() else path
    try:
        data = from_json(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read report: {file}: {error.strerror}: give a directory that `bench` made"
        ) from None
    except ValueError:
        raise ConfigError(
            f"cannot read report: {file}: it is not JSON: give a directory that `bench` made"
        ) from None
    if not isinstance(data, dict) or data.get("format") != FORMAT or "summary" not in data:
        raise ConfigError(
            f"cannot read report: {file}: it is not one of format {FORMAT}: measure again with this release"
        )
    return data


def compare(a: Mapping[str, Any], b: Mapping[str, Any], names: tuple[str, str]) -> Comparison:
    """Compare report `b` with report `a`, test by test.

    ConfigError (78) when they share no test, or one of them is not what `bench` wrote.
    """
    try:
        return _compared(a, b, names)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"cannot compare {names[0]} and {names[1]}: one of them was changed since it was written "
            f"({type(error).__name__}: {error}): measure again"
        ) from None


def _compared(a: Mapping[str, Any], b: Mapping[str, Any], names: tuple[str, str]) -> Comparison:
    shared = [name for name in a["summary"] if name in b["summary"]]
    if not shared:
        of = [", ".join(r["summary"]) or "none" for r in (a, b)]
        raise ConfigError(
            f"cannot compare {names[0]} and {names[1]}: no test was measured in both ({of[0]}; {of[1]}): "
            "compare two runs of one profile"
        )
    differences = []
    for test in shared:
        for metric in METRICS:
            one, two = (r["summary"][test].get(metric.key) for r in (a, b))
            if one is None or two is None:
                continue
            sample_a, sample_b = Sample(**one), Sample(**two)
            limit = noise(sample_a, sample_b)
            delta = sample_b.mean - sample_a.mean
            verdict = "unknown"
            if limit is not None:
                verdict = "same"
                if abs(delta) > limit:
                    verdict = "better" if (delta > 0) == metric.higher_is_better else "worse"
            ratio = sample_b.mean / sample_a.mean if sample_a.mean else None
            differences.append(
                Difference(
                    test, metric.key, metric.title, metric.unit, sample_a, sample_b, ratio, limit, verdict
                )
            )
    return Comparison(*names, tuple(differences), tuple(_warnings(a, b, names, shared)))


def _warnings(
    a: Mapping[str, Any], b: Mapping[str, Any], names: tuple[str, str], shared: list[str]
) -> Iterator[str]:
    for report, name in ((a, names[0]), (b, names[1])):
        if report["state"] != "complete":
            yield f"{name} is not whole: {report['state']}" + (
                f": {report['reason']}" if report["reason"] else ""
            )
        for other in report["summary"]:
            if other not in shared:
                yield f"{other} was measured in {name} only"
    tests = [{test["name"]: test for test in report["suite"]["tests"]} for report in (a, b)]
    for name in shared:
        one, two = tests[0][name], tests[1][name]
        for key in one:
            if key not in SAME_SETTINGS and one[key] != two.get(key):
                values = f"{one[key]} in A, {two.get(key)} in B"
                yield f"{name} was not asked for in the same way: {key} is {values}"
    for what in ("model", "node"):
        if a["context"][what] != b["context"][what]:
            yield f"the {what} differs: {a['context'][what]} in A, {b['context'][what]} in B"
    for name, version in a["context"]["versions"].items():
        other = b["context"]["versions"].get(name)
        if other != version:
            yield f"{name} differs: {version} in A, {other} in B"


def text(comparison: Comparison) -> str:
    """The comparison as Markdown, which reads well on a terminal too."""
    return "\n".join(_lines(comparison))


def _lines(comparison: Comparison) -> Iterator[str]:
    yield "# Comparison"
    yield ""
    yield f"- A: {comparison.a}"
    yield f"- B: {comparison.b}"
    yield from (f"- Mind: {warning}" for warning in comparison.warnings)
    yield ""
    known = [d for d in comparison.differences if d.verdict != "unknown"]
    if known:
        better, worse = (sum(d.verdict == v for d in known) for v in ("better", "worse"))
        chance = f"{len(known) * (1 - CONFIDENCE):.0f}"
        yield (
            f"B is better in {better} and worse in {worse} of {len(known)} numbers by more than the noise "
            f"between runs ({CONFIDENCE:.0%} confidence: about {chance} would be so by chance)."
        )
    else:
        yield "The noise between runs is not known: measure with --repeat 3 to tell a difference from chance."
    for test in dict.fromkeys(d.test for d in comparison.differences):
        yield from ("", f"## {test}", "")
        rows: list[tuple[str, ...]] = [("", "Unit", "A", "B", "B/A", "Noise", "B is")]
        for d in comparison.differences:
            if d.test == test:
                rows.append((
                    d.title, d.unit, number(d.a.mean), number(d.b.mean),
                    NONE if d.ratio is None else f"{d.ratio:.3f}",
                    NONE if d.noise is None else f"± {number(d.noise)}",
                    NONE if d.verdict == "unknown" else d.verdict,
                ))  # fmt: skip
        yield from _aligned(list(table(rows)))


def _aligned(lines: list[str]) -> Iterator[str]:
    """A Markdown table with columns as wide as their widest cell."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    right = {index for index, cell in enumerate(rows[1]) if cell.endswith(":")}
    cells = padded([rows[0], *rows[2:]], right)
    rule = ["-" * (len(c) - 1) + ":" if i in right else "-" * len(c) for i, c in enumerate(cells[0])]
    for row in (cells[0], rule, *cells[1:]):
        yield "| " + " | ".join(row) + " |"
