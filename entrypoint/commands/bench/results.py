"""What one run of AIPerf measured, read from the files that it wrote.

`profile_export_aiperf.json` has the summary; `profile_export.jsonl` one line per request, written as they
end, so that even a killed run can be told about.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from entrypoint.base.foreign import from_json

SUMMARY = "profile_export_aiperf.json"
RECORDS = "profile_export.jsonl"


@dataclass(frozen=True)
class Metric:
    """A number of the report."""

    key: str
    title: str
    unit: str
    source: tuple[str, str]
    """AIPerf's tag and statistic."""
    higher_is_better: bool = False


def _latency(tag: str, title: str, stats: Iterable[str]) -> list[Metric]:
    return [Metric(f"{tag}_{stat}", f"{title}, {stat}", "ms", (tag, stat)) for stat in stats]


METRICS = (
    Metric("output_throughput", "Output tokens", "tokens/s", ("output_token_throughput", "avg"), True),
    Metric("total_throughput", "Input and output tokens", "tokens/s",
           ("total_token_throughput", "avg"), True),
    Metric("request_throughput", "Requests", "requests/s", ("request_throughput", "avg"), True),
    Metric("goodput", "Good requests", "requests/s", ("goodput", "avg"), True),
    Metric("user_throughput", "Output tokens per user", "tokens/s",
           ("output_token_throughput_per_user", "avg"), True),
    *_latency("time_to_first_token", "Time to first token", ("avg", "p50", "p90", "p99")),
    *_latency("inter_token_latency", "Inter-token latency", ("avg", "p50", "p90", "p99")),
    *_latency("request_latency", "Request latency", ("avg", "p50", "p90", "p99")),
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One run of one test."""

    test: str
    repeat: int
    """1 for the first."""
    state: str
    """`complete`, `interrupted`, `server lost` or `aiperf failed`."""
    reason: str | None
    """Why it is not complete, in one line."""
    started: str
    """ISO 8601, UTC."""
    seconds: float
    """Time from AIPerf's start to its end."""
    measured_seconds: float | None
    """Time that the measured requests took, by AIPerf's clock."""
    succeeded: int
    failed: int
    errors: tuple[tuple[str, int], ...]
    """What went wrong, and how many times."""
    output_tokens: int | None
    """As the server's answers count them."""
    server_tokens: int | None
    """The same by the frontend's own counter; None when it cannot be told."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """By `Metric.key`."""
    from_records: bool = False
    """AIPerf wrote no summary: the numbers were worked out from its records."""
    artifacts: str = ""
    """AIPerf's directory, relative to the report."""
    command: tuple[str, ...] = ()

    def to_jsonable(self) -> dict[str, Any]:
        """As JSON-able data."""
        return asdict(self)


@dataclass(frozen=True)
class Measured:
    """What the files of one run say."""

    succeeded: int = 0
    failed: int = 0
    errors: tuple[tuple[str, int], ...] = ()
    seconds: float | None = None
    output_tokens: int | None = None
    warmup_tokens: int | None = None
    """Output tokens of the warm-up; None where this AIPerf does not record it."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    from_records: bool = False


def read(directory: Path) -> Measured:
    """What AIPerf left in `directory`; everything 0 or None when there is nothing."""
    records = list(_records(directory / RECORDS))
    warmup = [r for r in records if _phase(r) == "warmup"]
    warmup_tokens = int(_total(warmup, "usage_completion_tokens")) if warmup else None
    summary = _object(directory / SUMMARY)
    if (succeeded := _number(summary, "request_count", "avg")) is None:
        return _from_records([r for r in records if _phase(r) != "warmup"], warmup_tokens)
    metrics = {}
    for metric in METRICS:
        tag, stat = metric.source
        if (value := _number(summary, tag, stat)) is not None:
            metrics[metric.key] = value
    listed = _at(summary, "error_summary")
    errors = tuple(
        (_error(_at(entry, "error_details")), int(_number(entry, "count") or 0))
        for entry in (listed if isinstance(listed, list) else ())
    )
    tokens = _number(summary, "total_usage_completion_tokens", "avg")
    return Measured(
        succeeded=int(succeeded),
        failed=sum(count for _, count in errors),
        errors=errors,
        seconds=_number(summary, "benchmark_duration", "avg"),
        output_tokens=int(tokens) if tokens is not None else None,
        warmup_tokens=warmup_tokens,
        metrics=metrics,
    )


def _from_records(records: Sequence[Mapping[str, Any]], warmup_tokens: int | None) -> Measured:
    good = [r for r in records if not r.get("error")]
    counts: dict[str, int] = {}
    for record in records:
        if record.get("error"):
            text = _error(record["error"])
            counts[text] = counts.get(text, 0) + 1
    failed, errors = sum(counts.values()), tuple(counts.items())
    if not good:
        return Measured(failed=failed, errors=errors, warmup_tokens=warmup_tokens, from_records=True)
    begins, ends = (_times(good, f"request_{what}_ns") for what in ("start", "end"))
    seconds = (max(ends) - min(begins)) / 1e9 if begins and ends else 0.0
    tokens = _total(good, "usage_completion_tokens")
    metrics: dict[str, float] = {}
    if seconds > 0:
        metrics["request_throughput"] = len(good) / seconds
        metrics["output_throughput"] = tokens / seconds
        metrics["total_throughput"] = _total(good, "usage_total_tokens") / seconds
        metrics["goodput"] = _total(good, "good_request_count") / seconds
    for metric in METRICS:
        tag, stat = metric.source
        values = sorted(v for r in good if (v := _value(r, tag)) is not None)
        if values and metric.key not in metrics:
            metrics[metric.key] = _statistic(values, stat)
    return Measured(len(good), failed, errors, seconds, int(tokens), warmup_tokens, metrics, True)


def _statistic(values: Sequence[float], stat: str) -> float:
    if stat == "avg":
        return statistics.fmean(values)
    # Linear between the two nearest ranks, as AIPerf does it.
    place = (len(values) - 1) * int(stat.removeprefix("p")) / 100
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (place - low)


class Progress:
    """Counts the requests of a running AIPerf by the lines it has written so far."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / RECORDS
        self._offset = 0
        self.warmup = self.succeeded = self.failed = 0
        self.failing = False
        """Whether the last measured request failed."""

    def update(self) -> bool:
        """Read the new lines; whether there were any."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return False
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        for record in _parsed(whole.splitlines()):
            if _phase(record) == "warmup":
                self.warmup += 1
                continue
            self.failing = bool(record.get("error"))
            if self.failing:
                self.failed += 1
            else:
                self.succeeded += 1
        return bool(whole)

    @property
    def done(self) -> int:
        """Measured requests that have ended, one way or the other."""
        return self.succeeded + self.failed


def _records(path: Path) -> Iterable[dict[str, Any]]:
    try:
        return _parsed(path.read_bytes().splitlines())
    except OSError:
        return ()


def _parsed(lines: Iterable[bytes]) -> Iterable[dict[str, Any]]:
    for line in lines:
        try:
            record = from_json(line)
        except ValueError:
            continue  # the line that a killed AIPerf was writing
        if isinstance(record, dict):
            yield record


def _object(path: Path) -> dict[str, Any] | None:
    try:
        data = from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _at(data: object, *names: str) -> object:
    """What stands at `names` in AIPerf's data; None: nothing does, in this release or file."""
    for name in names:
        data = data.get(name) if isinstance(data, Mapping) else None
    return data


def _number(data: object, *names: str) -> float | None:
    found = _at(data, *names)
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        return None
    return float(found)


def _times(records: Iterable[Mapping[str, Any]], name: str) -> list[float]:
    found = (_number(record, "metadata", name) for record in records)
    return [time for time in found if time is not None]


def _phase(record: Mapping[str, Any]) -> str:
    return str(_at(record, "metadata", "benchmark_phase") or "")


def _value(record: Mapping[str, Any], tag: str) -> float | None:
    return _number(record, "metrics", tag, "value")


def _total(records: Iterable[Mapping[str, Any]], tag: str) -> float:
    return sum(_value(record, tag) or 0.0 for record in records)


def _error(details: Any) -> str:
    """An error as one short line."""
    if not isinstance(details, Mapping):
        return "unknown"
    text = " ".join(str(details.get("cause") or details.get("message") or "").split())
    code = details.get("code")
    name = str(details.get("type") or "error") + (f" {code}" if code else "")
    return f"{name}: {text[:200]}" if text else name
