"""A diagnosis for a person in a hurry: the cause first, then what is known of it, then ten lines. Pure."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timezone

from entrypoint.base.printable import clean
from entrypoint.commands.diagnose.findings import Weight
from entrypoint.commands.diagnose.logs import Diagnosis, named, title
from entrypoint.commands.diagnose.times import clock_time

SKEW = 0.1
"""Seconds from which on a difference of clocks is worth a line."""
SHOWN = 120
"""Characters of what happened, in one line."""
NAMES = 6
"""Nodes that are named in one line."""


def text(found: Diagnosis) -> str:
    """Everything, in lines."""
    return "\n".join(map(clean, [*_cause(found), "", *_timeline(found), *_beside(found)]))


def _cause(found: Diagnosis) -> list[str]:
    first = found.judgement.first
    if first is None:
        if found.asked:
            return ["no failure: it was asked to stop, and nothing had failed before"]
        return ["no failure is seen in these logs"]
    at = f" at {clock_time(first.begun)}" if first.begun is not None else ""
    where = f"{first.node} " if first.node else ""
    lines = [f"{title(first)}: {where}{named(first)}{at}"]
    if found.judgement.unseen:
        lines.append("  its own log does not say why: this is what others say of it")
    if first.known is not None and not first.sure and first.what[:40] not in first.quote:
        lines.append(f"  beside it: {first.quote}")
    if first.weight is Weight.CONSEQUENCE:
        lines.append("  what it lost came first, and is not in these logs")
    if first.known is not None:
        perhaps = "" if first.sure else "perhaps "
        lines.append(f"known: {perhaps}{first.known.cause} [{first.known.key}; {first.known.source}]")
        lines.append(f"do: {first.known.remedy}")
    else:
        lines += ["known: nothing more than that", f"do: {first.do}"]
    if first.where:
        lines.append(f"see: {first.where}")
    for node, process, last in found.silent[:3]:
        who = f"{node} {process}".strip()
        lines.append(f"silent: {who} wrote its last line at {clock_time(last)}, before anybody complained")
    return lines


def _timeline(found: Diagnosis) -> list[str]:
    if not found.timeline:
        return ["no line of these logs has a time"]
    day = datetime.fromtimestamp(found.timeline[0].at, timezone.utc).strftime("%Y-%m-%d")
    lines = [f"timeline ({day}, UTC):"]
    for line in found.timeline:
        nodes = [n for n in line.nodes if n]
        shown = ", ".join(nodes[:NAMES]) + (f" and {len(nodes) - NAMES} more" if len(nodes) > NAMES else "")
        over = f" (over {line.seconds:.1f} s)" if len(nodes) > 1 and line.seconds >= 0.05 else ""
        lines.append(f"  {clock_time(line.at)}  {shown + ': ' if shown else ''}{_short(line.text)}{over}")
    return lines


def _short(words: str) -> str:
    return words if len(words) <= SHOWN else f"{words[: SHOWN - 1]}…"


def _beside(found: Diagnosis) -> list[str]:
    lines = []
    others = Counter(f.kind for f in found.judgement.followed)
    if others:
        kinds = ", ".join(f"{count} {kind}" for kind, count in others.most_common())
        lines.append(f"followed: {sum(others.values())} more ({kinds})")
    by_phase: dict[str, list[str]] = {}
    for node, phase in sorted(found.phases.items()):
        by_phase.setdefault(phase, []).append(node)
    if len(by_phase) > 1 or (by_phase and "ready" not in by_phase):
        parts = [f"{phase} on {', '.join(nodes[:NAMES]) or 'it'}" for phase, nodes in by_phase.items()]
        lines.append(f"then: {'; '.join(parts)}")
    skewed = {n: a for n, a in found.ahead.items() if abs(a) >= SKEW}
    if skewed:
        each = ", ".join(f"{n} {a:+.1f} s" for n, a in sorted(skewed.items()))
        lines.append(f"clocks: corrected to {found.clock}'s: {each}")
    elif found.clock is None and len([n for n in found.nodes if n]) > 1:
        lines.append("clocks: the nodes' were not compared: their order is as good as their clocks are")
    if found.recorded:
        lines.append(f"the job's own record: {found.recorded}")
    if found.earlier:
        lines.append(
            f"left out: {found.earlier} earlier run{'s' if found.earlier > 1 else ''} in the same files"
        )
    lines += [f"left out: the middle of {path}, which is long" for path in found.cut]
    return lines
