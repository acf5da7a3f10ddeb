"""Means over repeated runs, and whether two differ by more than the runs differ among themselves. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
"""Of twenty numbers that are equal in truth, one differs by chance. To be surer takes more repeats."""

# Two-sided 95 % quantiles of Student's t for 1 to 30 degrees of freedom, then the normal distribution's.
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_Z95 = 1.960
"""Standard errors to either side of a mean that hold it with 95 %."""


@dataclass(frozen=True)
class Sample:
    """One number of one test, over its repeats."""

    n: int
    mean: float
    stdev: float | None
    """Sample standard deviation; None for a single run."""
    low: float
    high: float


def sample(values: Sequence[float]) -> Sample:
    """Summary of at least one value."""
    stdev = statistics.stdev(values) if len(values) > 1 else None
    return Sample(len(values), statistics.fmean(values), stdev, min(values), max(values))


def noise(a: Sample, b: Sample) -> float | None:
    """How far two means may lie apart by chance, with 95 % confidence; None when no run was repeated.

    The runs' variances are pooled: a single run can be compared with repeated ones.
    """
    freedom = a.n + b.n - 2
    if freedom < 1:
        return None
    squares = sum((s.n - 1) * s.stdev**2 for s in (a, b) if s.stdev is not None)
    quantile = _T95[freedom - 1] if freedom <= len(_T95) else _Z95
    return quantile * math.sqrt(squares / freedom * (1 / a.n + 1 / b.n))


def samples(runs: Sequence[Mapping[str, float]]) -> dict[str, Sample]:
    """A `Sample` for every number that any of `runs` has."""
    keys = dict.fromkeys(key for run in runs for key in run)
    return {key: sample([run[key] for run in runs if key in run]) for key in keys}
