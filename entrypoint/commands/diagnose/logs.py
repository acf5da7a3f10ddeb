"""From the files of a dead job to what `report` shows: times corrected, findings judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from entrypoint.commands.diagnose import rules
from entrypoint.commands.diagnose.findings import Finding, Weight, Written, of_process
from entrypoint.commands.diagnose.judge import Judgement, Line, Moment, judge, silent_ones, timeline
from entrypoint.commands.diagnose.sources import Event, Logs, Stream, read
from entrypoint.commands.diagnose.times import corrections, stamp_of, times_of

EARLY = 1.0
"""Seconds before the runner's first event that a line of this run may have, by a clock without fractions."""
UNSURE = 40
"""Last lines of a log in which an exception counts that nothing says the process died of."""


@dataclass
class Diagnosis:
    """All that is found out."""

    judgement: Judgement
    timeline: list[Line]
    nodes: list[str]
    clock: str | None
    """The node whose clock all times are by; None: clocks were not compared."""
    ahead: Mapping[str, float]
    """Seconds that each node's clock is ahead of that one."""
    asked: bool
    silent: list[tuple[str, str, float]] = field(default_factory=list)
    phases: dict[str, str] = field(default_factory=dict)
    """By node, what it did when the first cause came."""
    recorded: str | None = None
    """What the job itself left as its first cause."""
    cut: list[str] = field(default_factory=list)
    earlier: int = 0
    """Runs before this one that the same files have."""


def diagnose(directory: Path) -> Diagnosis:
    """What the logs in `directory` say. ConfigError (78) when there are none."""
    return of_logs(read(directory))


def of_logs(
    logs: Logs, more: Callable[[Mapping[str, float]], Iterable[Finding]] = lambda ahead: ()
) -> Diagnosis:
    """The same of logs that have been read. `more`: findings besides, by the seconds each clock is ahead."""
    nodes = sorted({key[0] for key in logs.streams} | {event.node for event in logs.events})
    head = str((logs.plan.get("job") or {}).get("node", ""))
    compared = [
        (e.node, str(e.data["clock_of"]), float(e.data["offset"]), float(e.data["round_trip"]))
        for e in logs.events
        if "clock_of" in e.data
    ]
    clock, ahead = corrections(compared, [head, *nodes])
    written = [*_written(logs, ahead)]
    events = sorted((replace(e, at=e.at - ahead.get(e.node, 0.0)) for e in logs.events), key=lambda e: e.at)
    told = [*_told(events, written)]
    asked_at = _asked(told, logs)
    findings = [*_findings(written, told, logs), *more(ahead)]
    found = judge(findings, asked_at)
    if found.first is None and logs.failure is not None and not logs.failure.startswith("0 "):
        found = Judgement(_recorded(logs.failure), (), False)
    first = found.first
    ends = [(w.node, w.process, w.times[-1]) for w in written if w.times and w.times[-1] is not None]
    engines = [(n, p, t) for n, p, t in ends if t is not None and p in ("prefill", "decode", "aggregated")]
    waited = first is not None and first.weight in (Weight.SYMPTOM, Weight.CONSEQUENCE, Weight.GONE)
    return Diagnosis(
        judgement=found,
        timeline=timeline(_moments(found, events, written, told), first),
        nodes=nodes,
        clock=clock,
        ahead=ahead,
        asked=asked_at is not None,
        silent=silent_ones(engines, first) if first is not None and waited else [],
        phases=_phases(events, first),
        recorded=logs.failure,
        cut=[stream.path for stream in logs.streams.values() if stream.cut],
        earlier=max(Counter(path for path, _ in logs.earlier).values(), default=0),
    )


def _recorded(failure: str) -> Finding:
    code, _, reason = failure.partition(" ")
    what = f"{reason} (exit code {code})"
    return Finding(
        Weight.CAUSE, None, "", "", what, "recorded", do=rules.SEE_NODE, quote=failure, where="failure"
    )


def _written(logs: Logs, ahead: Mapping[str, float]) -> Iterator[Written]:
    zones: dict[str, float | None] = {}
    begins: dict[str, float] = {}
    for event in logs.events:
        begins.setdefault(event.node, event.at)
    found: list[tuple[Stream, list[float | None]]] = []
    for stream in logs.streams.values():
        lines = [
            line if stamp is None else f"{stamp} {line}"
            for stamp, line in zip(stream.written, stream.lines, strict=True)
        ]
        times, zone = times_of(lines)
        if zone is not None:
            zones[stream.node] = zones.get("") or zone
            zones[""] = zone
        found.append((stream, times))
    for stream, times in found:
        zone = zones.get(stream.node) or zones.get("")
        if zone:
            times, _ = times_of(stream.lines, zone)
        off, begun = ahead.get(stream.node, 0.0), begins.get(stream.node, 0.0) - EARLY
        first = next((n for n, t in enumerate(times) if t is None or t >= begun), len(times))
        if first == len(times):
            continue  # all of an earlier run
        yield Written(
            stream.node,
            stream.process,
            Path(stream.path).name,
            stream.lines[first:],
            [None if t is None else t - off for t in times[first:]],
            stream.numbers[first:],
        )


@dataclass(frozen=True)
class _Told:
    """A line of a runner's own."""

    node: str
    at: float | None
    line: str
    where: str


def _told(events: Sequence[Event], written: Sequence[Written]) -> Iterator[_Told]:
    recorded = {e.node for e in events}
    for event in events:
        if "line" in event.data:
            yield _Told(event.node, event.at, str(event.data["line"]), "the runner's events")
    for each in written:
        if each.process == "runner" and each.node not in recorded:
            for line, at, number in zip(each.lines, each.times, each.numbers, strict=True):
                yield _Told(each.node, at, line, f"{each.path}:{number}")


def _asked(told: Sequence[_Told], logs: Logs) -> float | None:
    """When somebody asked the whole to stop."""
    times = [t.at for t in told if rules.ASKED.match(t.line) and t.at is not None]
    for line in logs.slurm:
        found = rules.CANCELLED.search(line)
        if found is not None and (stamp := stamp_of(found["at"])) is not None:
            times.append(stamp[0])
    return min(times, default=None)


def _findings(written: Sequence[Written], told: Sequence[_Told], logs: Logs) -> Iterator[Finding]:
    of_runners = [f for t in told if (f := rules.apply(rules.OF_RUNNER, t.node, t.at, t.line, t.where))]
    yield from of_runners
    if any(found.kind == rules.TOO_SLOW for found in of_runners):
        yield from _slow(told)
    yield from rules.of_slurm(logs.slurm)
    supervised = {t.node for t in told}
    ended = {(f.node, f.process) for f in of_runners}
    for each in written:
        if each.process == "runner":
            continue
        found = of_process(each)
        if found is None:
            continue
        if each.node in supervised:
            # The runner knows what ended, and what was only said.
            if (each.node, each.process) in ended:
                yield found
        elif found.known is not None or _at_the_end(each, found):
            yield found


def _slow(told: Sequence[_Told]) -> Iterator[Finding]:
    """Nodes that were slow in their start to its end."""
    found: dict[str, Finding] = {}
    for each in told:
        if (slow := rules.slow(each.node, each.at, each.line, each.where)) is not None:
            found[slow.node] = slow
        elif (over := rules.SLOW.match(each.line)) is not None and over["over"]:
            found.pop(over["over"], None)
    yield from found.values()


def _at_the_end(written: Written, found: Finding) -> bool:
    number = int(found.where.rpartition(":")[2])
    return written.numbers[-1] - number <= UNSURE


def _phases(events: Sequence[Event], first: Finding | None) -> dict[str, str]:
    at = first.begun if first is not None else None
    found: dict[str, str] = {}
    for event in events:
        phase = event.data.get("phase")
        if phase and (at is None or event.at <= at):
            found[event.node] = "ready" if event.data.get("ready") else str(phase)
    return found


def _moments(
    found: Judgement, events: Sequence[Event], written: Sequence[Written], told: Sequence[_Told]
) -> Iterator[Moment]:
    begun: dict[str, float] = {}
    for node, at in [*((e.node, e.at) for e in events), *((w.node, t) for w in written for t in w.times[:1])]:
        if at is not None:
            begun[node] = min(at, begun.get(node, at))
    for node, at in begun.items():
        yield Moment(at, node, "start", "start")
    kinds = {f.kind for f in (found.first, *found.followed) if f is not None}
    for each in told:
        if each.at is None:
            continue
        if each.line.startswith("ready after"):
            yield Moment(each.at, each.node, "ready", each.line)
        elif rules.ASKED.match(each.line):
            yield Moment(each.at, each.node, "asked", each.line.removeprefix("stopping: "))
        elif rules.SLOW.match(each.line) and "slow" not in kinds:
            yield Moment(each.at, each.node, each.line, each.line)
    if found.first is not None and found.first.begun is not None:
        yield Moment(
            found.first.begun, found.first.node, "first cause", f"{title(found.first)}: {named(found.first)}"
        )
    for other in found.followed:
        if other.begun is not None:
            yield Moment(other.begun, other.node, f"{other.weight} {other.kind}", named(other))
    last = [t for w in written for t in w.times[-1:] if t is not None] + [e.at for e in events[-1:]]
    if last:
        end = next(
            (e.data for e in reversed(events) if e.data.get("exit_code") is not None and "state" in e.data),
            {},
        )
        code = f", exit code {end['exit_code']}" if "reason" in end else ""
        yield Moment(max(last), "", "end", f"the last line{code}")


def title(found: Finding) -> str:
    """What a finding that nothing came before may be called: one that waited for others is no cause."""
    return "first cause" if found.weight in (Weight.CAUSE, Weight.GONE) else "first sign"


def named(found: Finding) -> str:
    """Whom a finding is about, and what it says."""
    who = " ".join(part for part in (found.process, found.rank) if part)
    return f"{who}: {found.what}" if who else found.what


def as_json(found: Diagnosis) -> dict[str, Any]:
    """For programs."""

    def one(finding: Finding) -> dict[str, Any]:
        return {
            "node": finding.node,
            "process": finding.process,
            "rank": finding.rank or None,
            "time": finding.begun,
            "what": finding.what,
            "kind": finding.kind,
            "weight": finding.weight.name.lower(),
            "sure": finding.sure,
            "known": finding.known
            and {"key": finding.known.key, "cause": finding.known.cause, "source": finding.known.source},
            "do": finding.known.remedy if finding.known is not None else finding.do,
            "line": finding.quote,
            "where": finding.where,
        }

    first = found.judgement.first
    return {
        "first_cause": one(first) if first is not None else None,
        "told_by_others": found.judgement.unseen,
        "followed": [one(f) for f in found.judgement.followed],
        "timeline": [
            {"time": x.at, "nodes": x.nodes, "text": x.text, "seconds": x.seconds} for x in found.timeline
        ],
        "silent": [{"node": n, "process": p, "last_line": t} for n, p, t in found.silent],
        "phases": found.phases,
        "asked_to_stop": found.asked,
        "clock": found.clock,
        "ahead": dict(found.ahead),
        "recorded": found.recorded,
        "nodes": found.nodes,
    }
