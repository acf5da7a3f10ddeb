"""The report: `report.json` for programs, `report.md` for people, plots. Pure, but for `write` and `draw`."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from entrypoint.commands.bench import aiperf
from entrypoint.commands.bench.markdown import PLOTS, markdown
from entrypoint.commands.bench.results import METRICS, Run
from entrypoint.commands.bench.statistic import Sample, samples
from entrypoint.commands.bench.suite import Suite
from entrypoint.errors import CannotWriteError

FORMAT = 1
"""Version of report.json's layout; raised when a field changes its meaning."""
JSON, MARKDOWN = "report.json", "report.md"
DRAW_TIMEOUT = 120.0


@dataclass
class Report:
    """Everything that one benchmark found."""

    suite: Suite
    repeat: int
    context: Mapping[str, Any]
    """When, where, against what: see `Session.run`."""
    runs: tuple[Run, ...]
    state: str
    """`running`, `complete`, `failed requests`, or the state of the run that ended it."""
    reason: str | None
    plots: tuple[str, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Whether every test was completed and no more requests failed than may."""
        return self.state == "complete"

    def summary(self) -> dict[str, dict[str, Sample]]:
        """By test and metric, over the repeats that measured something."""
        by_test = {t.name: [r.metrics for r in self.runs if r.test == t.name] for t in self.suite.tests}
        return {name: samples(found) for name, found in by_test.items() if any(found)}

    def to_jsonable(self) -> dict[str, Any]:
        """As JSON-able data."""
        summary = self.summary()
        return {
            "format": FORMAT,
            "state": self.state,
            "reason": self.reason,
            "suite": self.suite.model_dump(mode="json"),
            "repeat": self.repeat,
            "context": self.context,
            "metrics": {
                m.key: {"title": m.title, "unit": m.unit, "higher_is_better": m.higher_is_better}
                for m in METRICS
            },
            "summary": {
                t: {k: dataclasses.asdict(s) for k, s in found.items()} for t, found in summary.items()
            },
            "runs": [run.to_jsonable() for run in self.runs],
            "plots": list(self.plots),
        }


def write(report: Report, directory: Path) -> None:
    """Write both files, each at once. CannotWriteError (73)."""
    texts = {JSON: json.dumps(report.to_jsonable(), indent=2) + "\n", MARKDOWN: markdown(report)}
    for name, text in texts.items():
        path = directory / name
        fresh = path.with_name(f".{name}.new")
        try:
            fresh.write_text(text, encoding="utf-8")
            fresh.replace(path)
        except OSError as error:
            raise CannotWriteError(
                f"cannot write the report: {path}: {error.strerror}: free some space or give another --output"
            ) from None


def draw(report: Report, directory: Path, python: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Draw the plots with `python`'s matplotlib; the names of those there are.

    A failure costs the plots only: what matplotlib said is in plots.error.txt.
    """
    if not report.summary():
        return ()
    script = Path(__file__).with_name("plots.py")
    with tempfile.TemporaryDirectory(prefix="glm47-bench-", ignore_cleanup_errors=True) as home:
        try:
            done = subprocess.run(
                [python, str(script), str(directory / JSON), str(directory)],
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DRAW_TIMEOUT,
                env=aiperf.child_environment(environ, home),
            )  # fmt: skip
            problem = done.stderr if done.returncode else ""
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = str(error)
    if problem:
        (directory / "plots.error.txt").write_text(problem, encoding="utf-8")
    return tuple(name for name in PLOTS if (directory / name).is_file())
