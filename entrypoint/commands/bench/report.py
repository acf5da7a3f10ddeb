"""The report as data: everything that one benchmark found. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from entrypoint.commands.bench.results import METRICS, Run
from entrypoint.commands.bench.statistic import Sample, samples
from entrypoint.commands.bench.suite import Suite

FORMAT = 1
"""Version of report.json's layout; raised when a field changes its meaning."""
JSON = "report.json"


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
