"""Which finding is the first cause, and what followed. Pure; times are Unix seconds by one clock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from entrypoint.commands.diagnose.findings import Finding, Weight

SLACK = 5.0
"""Seconds by which a cause may be told after what follows from it: buffers, and clocks never compared."""
LINES = 10
"""Of the timeline."""


@dataclass(frozen=True)
class Moment:
    """Something that happened, for the timeline."""

    at: float
    node: str
    kind: str
    """Neighbours of one kind become one line."""
    text: str


@dataclass(frozen=True)
class Line:
    """One line of the timeline."""

    at: float
    nodes: tuple[str, ...]
    text: str
    seconds: float
    """From its first to its last moment."""


@dataclass(frozen=True)
class Judgement:
    """What a dead job says."""

    first: Finding | None
    """None: nothing went wrong, as far as these logs tell."""
    followed: tuple[Finding, ...]
    """All others, in order of time."""
    unseen: bool
    """The first cause is told by others only: the process itself says nothing of it."""


def one_each(findings: Iterable[Finding]) -> list[Finding]:
    """Of each process the finding that says most: what it wrote itself goes before how it ended."""
    findings = [*findings]
    told = {f.node for f in findings if f.weight is not Weight.GONE}
    best: dict[tuple[str, str], Finding] = {}
    for found in findings:
        if found.weight is Weight.GONE and found.node in told:
            continue  # what others say of a node that speaks for itself
        key = (found.node, found.process)
        known = best.get(key)
        if known is None:
            best[key] = found
            continue
        better, other = (found, known) if _order(found) < _order(known) else (known, found)
        begun = min((t for t in (better.begun, other.begun) if t is not None), default=None)
        if better.at is not None and begun is not None and other.weight <= better.weight:
            better = replace(better, late=max(better.late, better.at - begun))
        best[key] = replace(better, rank=better.rank or other.rank)
    return [*best.values()]


BARE = ("ended", "task ended", "left", "process left")
"""Kinds that say only how a process ended: what it wrote itself says why."""


def _order(found: Finding) -> tuple[bool, int, bool, float]:
    """The lower the better."""
    return (
        found.kind in BARE,
        found.weight,
        found.known is None,
        found.begun if found.begun is not None else float("inf"),
    )


def judge(findings: Iterable[Finding], asked_at: float | None) -> Judgement:
    """The first cause of all `findings`. `asked_at`: when the whole was asked to stop, in Unix seconds; what
    came later is none."""
    before = [f for f in one_each(findings) if asked_at is None or f.begun is None or f.begun < asked_at]
    if not before:
        return Judgement(None, (), False)
    timed = [f.begun for f in before if f.begun is not None]
    earliest = min(timed, default=None)

    def fits(found: Finding) -> bool:
        """What began after its own consequences is none of their causes."""
        return earliest is None or found.begun is None or found.begun <= earliest + SLACK

    for weight in Weight:
        fitting = [f for f in before if f.weight is weight and fits(f)]
        if fitting:
            first = min(fitting, key=lambda f: (f.begun is None, f.begun or 0.0))
            break
    rest = sorted((f for f in before if f is not first), key=lambda f: (f.begun is None, f.begun or 0.0))
    return Judgement(first, tuple(rest), first.weight is Weight.GONE)


def timeline(moments: Iterable[Moment], first: Finding | None) -> list[Line]:
    """`moments` in order of time: one line for each run of a kind, LINES at most; the first cause stays."""
    lines: list[Line] = []
    kinds: list[str] = []
    for moment in sorted(moments, key=lambda m: m.at):
        if kinds and kinds[-1] == moment.kind:
            last = lines[-1]
            nodes = last.nodes if moment.node in last.nodes else (*last.nodes, moment.node)
            lines[-1] = replace(last, nodes=nodes, seconds=moment.at - last.at)
        else:
            lines.append(Line(moment.at, (moment.node,), moment.text, 0.0))
            kinds.append(moment.kind)
    while len(lines) > LINES:
        # From the end: consequences of consequences; the last line is the end itself.
        keep = [i for i in range(len(lines)) if kinds[i] in ("first cause", "end", "start", "ready")]
        victim = next((i for i in range(len(lines) - 2, 0, -1) if i not in keep), len(lines) - 2)
        del lines[victim], kinds[victim]
    return lines


def silent_ones(last_lines: Sequence[tuple[str, str, float]], first: Finding) -> list[tuple[str, str, float]]:
    """Processes whose last line is older than the first sign: node, process, time; the earliest first.

    Where all others complain that they waited, such a one is whom they waited for.
    """
    if first.at is None:
        return []
    return sorted(
        (x for x in last_lines if first.at is not None and x[2] < first.at - SLACK), key=lambda x: x[2]
    )
