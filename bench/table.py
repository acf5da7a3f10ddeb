"""What was measured, as a table; what was to be reached, and whether it was. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

RUNNER, BASELINE = "glm47-runner", "supervisord"


@dataclass
class Row:
    """One figure of every system: all repetitions; a None among them did not happen within the limit."""

    key: str
    title: str
    unit: str
    samples: dict[str, list[float | None]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    """By system: why it has no samples, or what its figure means."""

    def add(self, system: str, sample: float | None) -> None:
        """One more repetition."""
        self.samples.setdefault(system, []).append(sample)

    def figure(self, system: str) -> float | None:
        """The median, or the worst for lines; None when there is none or most repetitions failed."""
        samples = self.samples.get(system)
        if not samples:
            return None
        infinite = [float("inf") if sample is None else sample for sample in samples]
        value = max(infinite) if self.unit == "lines" else statistics.median(infinite)
        return None if value == float("inf") else value


@dataclass(frozen=True)
class Goal:
    """Something to reach, and what was found."""

    text: str
    found: str
    reached: bool


def markdown(rows: Sequence[Row], systems: Sequence[str]) -> str:
    """The table, and its footnotes."""
    notes: list[str] = []
    lines = [
        "| | n | " + " | ".join(systems) + f" | {RUNNER} / {BASELINE} |",
        "|---|---|" + "---|" * len(systems) + "---|",
    ]
    for row in rows:
        counts = sorted({len(samples) for samples in row.samples.values() if samples})
        n = "-".join(str(count) for count in sorted({*counts[:1], *counts[-1:]}))
        cells = [_cell(row, system, notes) for system in systems]
        lines.append(f"| {row.title} | {n} | " + " | ".join(cells) + f" | {_ratio(row)} |")
    return "\n".join([*lines, "", *(f"[{number}] {text}  " for number, text in enumerate(notes, 1))])


def _cell(row: Row, system: str, notes: list[str]) -> str:
    note = row.notes.get(system)
    mark = ""
    if note is not None:
        if note not in notes:
            notes.append(note)
        mark = f" [{notes.index(note) + 1}]"
    if not row.samples.get(system):
        return "-" + mark
    value = row.figure(system)
    return ("never" if value is None else _number(value, row.unit)) + mark


def _number(value: float, unit: str) -> str:
    if unit == "ms":
        return f"{value * 1000:.1f} ms" if value < 0.01 else f"{value * 1000:.0f} ms"
    if unit == "MB":
        return f"{value:.1f} MB"
    if unit == "lines/s":
        return f"{value / 1e6:.3f} M/s"
    return f"{value:.0f}"


def _ratio(row: Row) -> str:
    ours, theirs = row.figure(RUNNER), row.figure(BASELINE)
    return f"{ours / theirs:.2f}" if ours is not None and theirs else ""


def goals(rows: Mapping[str, Row], path: Sequence[Sequence[float]] | None) -> list[Goal]:
    """Everything that is to be reached. `path`: seconds of requests (under the runner, by hand)."""
    return [*_start(rows), *_reactions(rows), *_lines(rows), *_memory(rows), *_path(path)]


SPAWN_RATIO = 0.2
"""supervisord mostly waits: a second, before it starts anything."""


def _start(rows: Mapping[str, Row]) -> Iterable[Goal]:
    ours, theirs = rows["first_spawn"].figure(RUNNER), rows["first_spawn"].figure(BASELINE)
    found = "not measured" if ours is None or not theirs else f"{ours / theirs:.2f}"
    reached = ours is not None and theirs is not None and ours <= theirs * SPAWN_RATIO
    yield Goal(f"first spawn at most {SPAWN_RATIO} of supervisord's", found, reached)


def _reactions(rows: Mapping[str, Row]) -> Iterable[Goal]:
    for key in ("dependent", "crash", "term_idle", "term_blocked"):
        value = rows[key].figure(RUNNER)
        found = "never" if value is None else _number(value, "ms")
        yield Goal(f"{rows[key].title}: under 100 ms", found, value is not None and value < 0.1)


def _lines(rows: Mapping[str, Row]) -> Iterable[Goal]:
    for style in ("print", "raw"):
        ours, theirs = (rows[f"rate_{style}"].figure(name) for name in (RUNNER, BASELINE))
        ratio = ours / theirs if ours is not None and theirs else 0.0
        yield Goal(f"{rows[f'rate_{style}'].title}: 0.8 of supervisord's", f"{ratio:.2f}", ratio >= 0.8)
    for key in ("lost", "joined"):
        value = rows[key].figure(RUNNER)
        yield Goal(f"0 {rows[key].title}", "not measured" if value is None else f"{value:.0f}", value == 0)


def _memory(rows: Mapping[str, Row]) -> Iterable[Goal]:
    value = rows["rss"].figure(RUNNER)
    found = "not measured" if value is None else _number(value, "MB")
    yield Goal("memory (RSS) below 32 MB", found, value is not None and value < 32)


PATH_LIMIT = 1.03
"""Two equal stacks of one machine, asked in turn, differ by about 1 %."""


def path_ratio(path: Sequence[Sequence[float]]) -> float:
    """Median latency under the runner, divided by the median by hand."""
    return statistics.median(path[0]) / statistics.median(path[1])


def _path(path: Sequence[Sequence[float]] | None) -> Iterable[Goal]:
    if path is not None:
        ratio = path_ratio(path)
        yield Goal(
            f"request path: at most {PATH_LIMIT} of by hand (noise)", f"{ratio:.3f}", ratio <= PATH_LIMIT
        )
