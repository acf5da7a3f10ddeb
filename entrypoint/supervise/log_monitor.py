"""What the processes' own output tells: progress, the end of loading, why one died."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from entrypoint.plan.types import LoadedProbe, Plan
from entrypoint.supervise.failures.live import Finding, LiveHints
from entrypoint.supervise.lifecycle.actions import Action, Say
from entrypoint.supervise.lifecycle.director import Director
from entrypoint.supervise.lifecycle.endings import ending
from entrypoint.supervise.lifecycle.states import State
from entrypoint.supervise.lifecycle.verdicts import Clues, Verdict
from entrypoint.supervise.output.forwarding import ChildOutput, Output
from entrypoint.supervise.output.log_files import RUNNER
from entrypoint.supervise.output.progress import Progress
from entrypoint.supervise.output.steps import Step, Steps
from entrypoint.supervise.status.report import waiting_for

FIRST_NEWS, NEWS = 10.0, 60.0
"""Seconds after which a start that is not over says what it waits for, and then between repeats."""

TAIL = 4000
"""Last lines of a process that ended to look for the cause in; those of requests that still reach it may be
most of them."""


class Watcher:
    """Reads along, and turns it into events for the director and fields for the status."""

    def __init__(self, plan: Plan, director: Director, output: Output, nudge: Callable[[str], None]) -> None:
        self._plan, self._director, self._output, self._nudge = plan, director, output, nudge
        self._children: dict[str, ChildOutput] = {}
        self._progress: dict[str, Progress] = {}
        self._steps: dict[str, Steps] = {}
        self._nudged: set[str] = set()
        self._earlier: dict[str, tuple[int, int]] = {}
        """Lines and bytes of a process's earlier lives."""
        self._hints: dict[str, LiveHints] = {}
        self._findings: dict[str, list[dict[str, Any]]] = {}
        self.on_finding: Callable[[str], None] = lambda text: None
        """Called with a failure that a living process wrote of."""
        self._tell_at = director.started_at + FIRST_NEWS

    def new_output(self, name: str, fd: int) -> ChildOutput:
        """A reader for a process that has just been started."""
        spec = self._plan.process(name)
        self._nudged.discard(name)
        if name in self._children:
            self._earlier[name] = self._read(name)
        progress = Progress(spec.log_dialect, time.monotonic())
        self._progress[name] = progress
        steps = self._steps[name] = Steps(progress.started)

        def on_lines(lines: list[str]) -> None:
            read_at = time.monotonic()
            for line in lines:
                progress.feed(line, read_at)
                steps.feed(line, read_at)

        child = self._output.child(name, fd, on_lines)
        self._children[name] = child
        hints = self._hints[name] = LiveHints(child.tail)
        child.on_data = hints.saw
        return child

    def turn(self, now: float) -> list[Action]:
        """Once per turn of the loop, at the monotonic time `now`: what has changed since the last one."""
        return [*self._news(now), *self._follow(now), *self._found(now)]

    def next_look(self) -> float | None:
        """When `turn` has something to do although nothing else happens (monotonic seconds)."""
        return min((due for hints in self._hints.values() if (due := hints.due()) is not None), default=None)

    def _found(self, now: float) -> Iterator[Action]:
        if self._director.stopping is not None:
            return  # what a stop brings about is no news
        for name, hints in self._hints.items():
            for finding in hints.look(now):
                self._keep(name, finding)
                yield Say(f"{name}: {finding}")
                self.on_finding(f"it has not ended, but {name} said at {_clock()}: {finding}")

    def _keep(self, name: str, finding: Finding) -> None:
        kept = self._findings.setdefault(name, [])
        found = next((f for f in kept if f["key"] == finding.key), None)
        if found is None:
            kept.append(found := {"key": finding.key, "count": 0})
        # Once in each of its lives.
        found |= {"text": str(finding), "at": round(time.time(), 1), "count": found["count"] + 1}

    def _read(self, name: str) -> tuple[int, int]:
        """Lines and bytes of output so far, of all its lives."""
        lines, size = self._earlier.get(name, (0, 0))
        return lines + self._children[name].lines, size + self._children[name].bytes

    def _follow(self, now: float) -> Iterator[Action]:
        for name, progress in self._progress.items():
            proc, child = self._director.procs[name], self._children[name]
            child.flush_idle(now)
            if not child.parse:
                continue
            sign = progress.last_line_at
            if sign is not None and sign > proc.last_sign:
                self._director.sign(name, sign)
                if progress.phase == "registered" and name not in self._nudged:
                    self._nudged.add(name)
                    self._nudge(name)
            if proc.spec.log_dialect is not None and proc.state is State.RUNNING and proc.ready_at is None:
                # On every turn: a silent phase gets longer too.
                self._director.doing(name, progress.summary(now))
            if isinstance(proc.spec.ready, LoadedProbe) and progress.loaded and not proc.ready:
                yield from self._director.health(name, True, "", now)
            child.parse = not proc.ready or proc.suspected
            if proc.ready:
                self._director.doing(name, "")  # should it be lost again, its probe says why

    def _news(self, now: float) -> Iterator[Action]:
        """While the start lasts: what is waited for, when it changed or a minute has passed."""
        director = self._director
        if director.ready or director.stopping is not None:
            self._tell_at = now + FIRST_NEWS
            return
        if now < self._tell_at:
            return
        self._tell_at = now + NEWS
        for line in waiting_for(director):
            yield Say(f"waiting for {line}")

    def last_lines(self, name: str, lines: int) -> list[str]:
        """The last `lines` lines of a process; none before its start. Safe from any thread.

        Of `runner` its own last events, each a JSON object.
        """
        if name == RUNNER:
            return self._output.recent(lines)
        child = self._children.get(name)
        return child.tail(lines) if child is not None else []

    def batches(self, name: str) -> int:
        """Lines so far in which `name` says that it has begun a batch. Safe from any thread."""
        progress = self._progress.get(name)
        return progress.batches if progress is not None else 0

    def steps(self, name: str) -> Mapping[str, Step]:
        """The steps of its start that `name` has told of, in this life."""
        return self._steps[name].all

    def extra(self) -> dict[str, dict[str, Any]]:
        """Fields for the status object, by process."""
        now = time.monotonic()
        lost: dict[str, int] = {}
        for by_process in self._output.lost().values():
            for name, loss in by_process.items():
                lost[name] = lost.get(name, 0) + loss.lines
        return {
            name: {
                "phase": progress.phase if progress.dialect is not None else None,
                "progress": self._progress_of(name),
                "phase_seconds": {phase: round(spent, 1) for phase, spent in progress.spent(now).items()},
                "output_lines": self._read(name)[0],
                "output_bytes": self._read(name)[1],
                "dropped_lines": lost.get(name, 0),
                "findings": [*self._findings.get(name, ())],
            }
            for name, progress in self._progress.items()
        }

    def _progress_of(self, name: str) -> str | None:
        """How far the start has come; None once it is over, and before there is one."""
        proc = self._director.procs[name]
        return proc.phase or None if proc.state is State.RUNNING and not proc.ready else None

    def clues(self, name: str) -> Clues:
        """What the last lines of a process that ended say of the cause, those still in its pipe included."""
        from entrypoint.supervise.failures.known import failure_hint, lost_rank

        self._children[name].drain()
        lines = self._children[name].tail(TAIL)
        found = failure_hint(lines)
        # The ranks of one node share a container: which of them was lost is known there.
        lost = lost_rank(lines) if self._plan.nnodes > 1 else None
        return Clues(
            f" ({found})" if found else "", lost, ending(lines), unusable=self._unusable(name, lines)
        )

    def _unusable(self, name: str, lines: list[str]) -> Verdict | None:
        from entrypoint.supervise.failures.data import unusable

        data = self._plan.process(name).data
        found = unusable(name, data, lines) if data is not None else None
        return Verdict(*found) if found is not None else None

    def describe(self) -> list[str]:
        """The state in a few lines, for SIGUSR1."""
        lines = [
            f"{name}: {proc.state.value}, {'ready' if proc.ready else f'not ready: {proc.phase or proc.why}'}"
            for name, proc in self._director.procs.items()
        ]
        return lines + [f"{n}: {'open' if g.open else g.why}" for n, g in self._director.gates.items()]


def _clock() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
