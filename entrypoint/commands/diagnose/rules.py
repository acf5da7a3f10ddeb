"""The lines of the runner and of Slurm that tell of an end, as a table. Pure; times are Unix seconds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from entrypoint.commands.diagnose.findings import Finding, Weight, rank_of_title

SEE_KERNEL = "see the node's kernel log for the out-of-memory killer, and the container's memory limit"
SEE_LOG = "see its log"
SEE_NODE = "look at that node, and at its log"
DEAD_FOR = 12.0
"""Seconds that a process is dead when the runner says so, about (`watchdog.vital`)."""
TOO_SLOW = "start too slow"
"""Kind of a start that is over its time."""
SILENT_FOR = 10.0
"""Seconds that a node is silent before its peers give it up (`lifecycle.peer_watch`)."""


@dataclass(frozen=True)
class Rule:
    """What one kind of line means. Groups of its pattern: process, node, title, seconds, what is shown."""

    pattern: re.Pattern[str]
    weight: Weight
    kind: str
    what: str
    """The finding in words, with groups in braces."""
    do: str
    late: float = 0.0
    """Seconds before the line at which it may have begun; `seconds` in the line counts more."""


def _rule(pattern: str, weight: Weight, kind: str, what: str, do: str, late: float = 0.0) -> Rule:
    return Rule(re.compile(pattern), weight, kind, what, do, late)


_P = r"(?P<process>[\w-]+)"
_STUCK = (
    rf"(?:stopping: {_P} hangs|(?P<unready>[\w-]+) is not ready any more): "
    r"its process (?P<title>\S+) \(pid \d+\) "
)
_DEAD = rf"stopping: {_P} cannot go on: its process (?P<title>\S+) \(pid \d+\) is dead: "
OF_RUNNER: tuple[Rule, ...] = (
    _rule(
        rf"{_P} ended: (?P<how>killed by SIGKILL \(137\))", Weight.CAUSE, "killed", "ended: {how}", SEE_KERNEL
    ),
    _rule(
        rf"{_P} ended: (?P<how>killed by SIG\w+ \(\d+\)|exit code \d+)",
        Weight.CAUSE,
        "ended",
        "ended: {how}",
        SEE_LOG,
    ),
    _rule(
        rf"{_DEAD}(?P<how>killed by SIGKILL \(137\))",
        Weight.CAUSE,
        "killed",
        "its process {title} is dead: {how}",
        SEE_KERNEL,
        DEAD_FOR,
    ),
    _rule(
        rf"{_DEAD}(?P<how>killed by SIG\w+ \(\d+\)|how it ended is not known)",
        Weight.CAUSE,
        "process dead",
        "its process {title} is dead: {how}",
        SEE_LOG,
        DEAD_FOR,
    ),
    # One that left by itself met something: its own log, or another rank's, says what.
    _rule(
        rf"{_DEAD}(?P<how>exit code \d+)",
        Weight.SYMPTOM,
        "process left",
        "its process {title} is dead: {how}",
        SEE_LOG,
        DEAD_FOR,
    ),
    _rule(
        rf"{_STUCK}is stopped by a signal.*?(?:, for (?P<seconds>\d+) s\b|$)",
        Weight.CAUSE,
        "stopped",
        "its process {title} is stopped by a signal",
        "find who stopped it (a debugger, a freezer), and start it again",
    ),
    _rule(
        rf"{_STUCK}(?P<how>.*?)(?:, for (?P<seconds>\d+) s\b|$)",
        Weight.SYMPTOM,
        "hangs",
        "hangs: its process {title} {how}",
        "see the stacks beside its log, and the other ranks of its worker",
    ),
    _rule(
        r"stopping: lost (?P<process>.+?) on (?P<node>\S+): (?P<how>.*)",
        Weight.GONE,
        "node lost",
        "{how}",
        SEE_NODE,
        SILENT_FOR,
    ),
    _rule(
        rf"stopping: {_P} lost the rank at (?P<how>\S+) of its worker",
        Weight.CONSEQUENCE,
        "rank lost",
        "lost the rank at {how}",
        SEE_NODE,
    ),
    _rule(
        rf"stopping: (?P<how>cannot start: {_P} (?:is not ready after|made no progress for) .*)",
        Weight.SYMPTOM,
        TOO_SLOW,
        "{how}",
        SEE_LOG,
    ),
    _rule(
        rf"stopping: {_P} (?P<how>left with 0 although nobody had asked it to)",
        Weight.CAUSE,
        "left",
        "{how}",
        SEE_LOG,
    ),
    _rule(rf"stopping: {_P} (?P<how>serves nobody: .*)", Weight.SYMPTOM, "serves nobody", "{how}", SEE_LOG),
    _rule(
        r"(?P<how>cannot write \S+: (?:No space left on device|Disk quota exceeded)): .*",
        Weight.SYMPTOM,
        "disk full",
        "{how}",
        "make room there",
    ),
    _rule(
        r"(?:stopping: )?(?P<how>a fault of the runner itself: .*)",
        Weight.CAUSE,
        "runner fault",
        "{how}",
        "report it with this log",
    ),
    _rule(
        r"(?:stopping: )?(?P<how>cannot (?!write ).*)",
        Weight.CAUSE,
        "refused",
        "{how}",
        "do what the line says",
    ),
    _rule(
        r"stopping: (?P<how>.+? on (?P<node>\S+): .*)",
        Weight.CONSEQUENCE,
        "stopped with another",
        "{how}",
        SEE_NODE,
    ),
)
"""Of several that match, the first counts."""
SLOW = re.compile(
    rf"{_P}: (?P<what>.*?(?:\(node (?P<node>[^)]+)\) )?is slow(?P<start> since)?\b.*"
    r"|node (?P<over>\S+) has caught up: .*)"
)
"""A node is slower than others, or is so no more: no cause of an end, unless the start is over its time."""
ASKED = re.compile(r"(?:stopping: )?asked to stop\b")

CANCELLED = re.compile(r"slurmstepd: error: \*\*\* (?:JOB|STEP) \S+ ON \S+ CANCELLED AT (?P<at>\S+) \*\*\*")
"""Somebody cancelled it, or `srun` did since a task had ended."""

OF_SLURM: tuple[Rule, ...] = (
    _rule(
        r"(?:(?P<node>\S+): )?slurmstepd: error: Detected \d+ oom[_-]kill event",
        Weight.CAUSE,
        "oom-killed",
        "the out-of-memory killer ended a process",
        "give the job the node's memory (--mem=0), or lower what it takes",
    ),
    _rule(
        r"slurmstepd: error: \*\*\* (?:JOB|STEP) \S+ ON (?P<node>\S+) CANCELLED AT (?P<at>\S+) "
        r"DUE TO (?P<how>.*?) ?\*\*\*",
        Weight.CAUSE,
        "slurm",
        "Slurm ended the job: {how}",
        "see `sacct`, the job's --time and the node's state",
    ),
    _rule(
        r"srun: error: (?P<node>[^\s:]+): tasks? [\d,-]+: (?P<how>Exited with exit code \d+|Out Of Memory|"
        r"Segmentation fault.*|Bus error.*|Aborted.*)",
        Weight.GONE,
        "task ended",
        "its task: {how}",
        SEE_NODE,
    ),
)


def apply(rules: Iterable[Rule], node: str, at: float | None, line: str, where: str) -> Finding | None:
    """What `line` says, by the first of `rules` that matches it; None: nothing."""
    for rule in rules:
        found = rule.pattern.match(line)
        if found is None:
            continue
        groups = found.groupdict(default="")
        title = groups.get("title", "")
        return Finding(
            weight=rule.weight,
            at=at,
            node=groups.get("node") or node,
            process=groups.get("process") or groups.get("unready") or "",
            what=rule.what.format_map(groups),
            kind=rule.kind,
            late=float(groups.get("seconds") or rule.late),
            rank=rank_of_title(title),
            do=rule.do,
            quote=line[:300],
            where=where,
        )
    return None


def slow(node: str, at: float | None, line: str, where: str) -> Finding | None:
    """The node that a line calls slow in its start."""
    found = SLOW.match(line)
    if found is None or not found["start"]:
        return None
    what, do = found["what"], "look at that node: what holds it up stands there, as far as it is seen"
    who = found["node"] or node
    return Finding(Weight.SYMPTOM, at, who, found["process"], what, "slow", do=do, quote=line, where=where)


def of_slurm(lines: Iterable[str]) -> Iterator[Finding]:
    """What Slurm's own programs say of the end."""
    for line in lines:
        found = apply(OF_SLURM, "", None, line, "Slurm's output")
        if found is not None:
            yield found
