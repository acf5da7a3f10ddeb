"""Tells how far this node's ranks are and what holds them up; names the node that all others wait for.

Looks every EVERY seconds while an engine starts, here or at a peer, every SERVING later. Of a worker over
several nodes its leader names the slow one; the head compares workers of one node each.
"""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from entrypoint.base.foreign import from_json
from entrypoint.plan.types import Plan
from entrypoint.supervise.lifecycle.actions import Action, Say
from entrypoint.supervise.lifecycle.director import Director
from entrypoint.supervise.lifecycle.process import Proc
from entrypoint.supervise.lifecycle.slow import DOING, Place, Slow, duration, places_of, slow, who
from entrypoint.supervise.lifecycle.slow_why import served, why
from entrypoint.supervise.lifecycle.states import State
from entrypoint.supervise.watchdog.burden import Burden, Machine, Total, added

EVERY, SERVING, MACHINE = 2.0, 5.0, 10.0
"""Seconds between two looks: in a start, later, and at the machine in a start."""
LOOKS, QUIET = 4, 300.0
"""Last looks at an engine that serves which count; seconds after which one is called slow again."""
SETTLE, JOIN = 3.0, 12.0
"""Seconds that somebody must have been slow to be named: without GPUs, and with them, which are asked."""
GPUS, AGAIN = 8.0, 300.0
"""Seconds that a driver may take, and between two questions to it."""
SERVES = "serving"
_BAR = re.compile(r"loading .*? (\d+)/(\d+)\b")


class _Step(Protocol):
    began: float
    begun: int
    ends: list[float]


Steps = Callable[[str], Mapping[str, _Step]]
"""The steps that a process's log has told of so far, by name."""


@dataclass
class _Known:
    """Somebody who is slow."""

    since: float
    text: str = ""
    told: bool = False


class Paces:
    """`turn` belongs to the loop, and never waits."""

    def __init__(self, plan: Plan, director: Director, steps: Steps) -> None:
        self._plan, self._director, self._steps = plan, director, steps
        self._burdens: dict[str, Burden] = {}
        self._machine = Machine()
        self._at = self._machine_at = 0.0
        self._seen: dict[str, float] = {}
        self._gpus: Any = None
        """What the driver said of the GPUs' clocks; None: nobody has asked."""
        self._served: dict[str, list[Total]] = {}
        """The last looks at an engine that serves; the leader's only while it has requests."""
        self._quiet: dict[tuple[str, str, str], float] = {}
        """Until when nothing is said of one that serves."""
        self._known: dict[tuple[str, str, str], _Known] = {}
        self._has_gpus = any(Path("/dev").glob("nvidia[0-9]*"))
        self._asked = float("-inf")
        self.paces: dict[str, dict[str, Any]] = {}
        """How far each engine's ranks are: part of the status."""

    @property
    def load(self) -> dict[str, Any]:
        """What holds this node up, for other runners: part of the status."""
        suspects = any(step != SERVES for _, step, _ in self._known)
        return {"machine": self._seen, "gpus": self._gpus, "suspects": suspects}

    @property
    def slow(self) -> list[dict[str, str]]:
        """Who is slow: part of the status."""
        return [
            {"process": name, "step": step, "node": node, "text": known.text}
            for (name, step, node), known in self._known.items()
            if known.told
        ]

    def turn(self, now: float) -> Iterator[Action]:
        """Look where that is due at the monotonic time `now`, and say who is slow, once."""
        if now < self._at:
            return
        engines = [
            proc
            for proc in self._director.procs.values()
            if proc.spec.log_dialect is not None and proc.state is State.RUNNING and proc.pid is not None
        ]
        starting = any(proc.ready_at is None for proc in engines)
        peers = self._director.watch.statuses().values() if self._director.watch is not None else ()
        still = starting or not all(status.get("started") for status in peers)
        self._at = now + (EVERY if still else SERVING)
        if self._director.stopping is not None:
            return
        self.paces = {proc.spec.name: self._look(proc, now) for proc in engines}
        if starting and now >= self._machine_at:
            self._machine_at = now + MACHINE
            self._seen = self._machine.look(now)
        found: dict[tuple[str, str, str], str] = {}
        for proc in engines if self._plan.rank == 0 else ():
            found |= self._judge(proc.spec.name)
        yield from self._news(found, now)
        self._ask_gpus(now)

    def _look(self, proc: Proc, now: float) -> dict[str, Any]:
        name = proc.spec.name
        assert proc.pid is not None
        burden = self._burdens.get(name)
        if burden is None or burden.pid != proc.pid:
            burden = self._burdens[name] = Burden(proc.pid)
            self._served.pop(name, None)
        steps = self._steps(name)
        open_now = {step: self._open(steps[step], burden) for step in steps}
        if proc.ready_at is not None:
            self._serve(proc, burden, now)
        else:
            burden.look(next((step for step in reversed([*steps]) if open_now[step]), ""), now)
        started = proc.ready_at is not None
        bar = _BAR.match(proc.phase)
        told = {
            step: {
                "ended": [[round(end - each.began, 1), round(now - end, 1)] for end in each.ends],
                "open": 0 if started else open_now[step],
                "elapsed": round(now - each.began, 1),
                "seen": _numbers(burden.totals.get(step, Total())),
                "progress": f"{bar[1]} of {bar[2]}" if bar is not None else "",
            }
            for step, each in steps.items()
        }
        if len(served := self._served.get(name, [])) >= LOOKS:
            told[SERVES] = {"ended": [], "open": 0, "elapsed": 0, "seen": _numbers(added(served))}
        return {"ranks": sorted(burden.ranks.values()), "steps": told}

    @staticmethod
    def _open(step: _Step, burden: Burden) -> int:
        return max(0, max(step.begun, len(burden.ranks), 1) - len(step.ends))

    def _serve(self, proc: Proc, burden: Burden, now: float) -> None:
        served = self._served.setdefault(proc.spec.name, [])
        burden.look(SERVES, now, seldom=True)
        total = burden.totals.pop(SERVES, None)
        if proc.requests is not None and not proc.requests.in_flight:
            served.clear()
        elif total is not None:
            served[:] = [*served[1 - LOOKS :], total]

    def _judge(self, name: str) -> dict[tuple[str, str, str], str]:
        """The line for each (process, step, node) that is slow."""
        found = {}
        for step in (*DOING, SERVES):
            places = [*self._places(name, step)]
            total = sum(place.count for place in places) if len({p.worker for p in places}) == 1 else 0
            if step == SERVES:
                ranks = sum(len(place.ranks) for place in places)
                own = next((p for p in places if p.node == self._node), None)
                for place in places if own is not None and self._plan.nnodes > 1 else ():
                    text = served(place, [other for other in places if other is not place])
                    if text is not None:
                        line = f"{who(place, ranks)} is slow: {text}: all answers wait for it"
                        found[name, step, place.node] = line
                continue
            for each in slow(step, places):
                apart = [place for place in places if place is not each.place]
                found[name, step, each.place.node] = self._line(each, total or each.place.count, apart)
        return found

    def _line(self, each: Slow, total: int, others: list[Place]) -> str:
        since = time.strftime("%H:%M:%SZ", time.gmtime(time.time() - each.ago))
        return each.line(total, since, why(each.place, others))

    @property
    def _node(self) -> str:
        return self._plan.job.node if self._plan.job is not None else ""

    def _places(self, name: str, step: str) -> Iterator[Place]:
        job, watch = self._plan.job, self._director.watch
        own = job.what.rpartition(" rank ")[0] if job is not None else ""
        mine = places_of(self._node, own, {"pace": self.paces.get(name)}, self.load, step)
        if mine is not None:
            yield mine
        if job is None or watch is None:
            return
        workers = {peer.name: peer.what.rpartition(" rank ")[0] for peer in job.peers}
        for node, status in watch.statuses().items():
            single = job.head and self._plan.nnodes == 1 and status.get("nnodes") == 1
            if workers[node] != own and not single:
                continue
            for process in status.get("processes", ()):
                if process.get("name") == name:
                    place = places_of(node, workers[node], process, status.get("load") or {}, step)
                    if place is not None:
                        yield place

    def _news(self, found: Mapping[tuple[str, str, str], str], now: float) -> Iterator[Action]:
        for key in [*self._known]:
            if key not in found:
                name, step, node = key
                if self._known.pop(key).told:
                    yield from self._over(name, step, node)
        for key, text in found.items():
            known = self._known.setdefault(key, _Known(now))
            known.text = f"{key[0]}: {text}"
            wait = 0.0 if key[1] == SERVES else JOIN if self._has_gpus else SETTLE
            if not known.told and now - known.since >= wait:
                known.told = True
                if now >= self._quiet.get(key, now):
                    yield Say(known.text)
                if key[1] == SERVES:
                    self._quiet[key] = now + QUIET

    def _over(self, name: str, step: str, node: str) -> Iterator[Action]:
        """Who was slow is through with the step, if it did not begin again."""
        place = next((p for p in self._places(name, step) if p.node == node), None)
        if place is None or step == SERVES or place.open or not place.ended:
            return
        took = duration(max(seconds for seconds, _ in place.ended))
        where = f"node {node}" if node else "the slow rank"
        yield Say(f"{name}: {where} has caught up: {DOING[step]} took it {took}")

    def _ask_gpus(self, now: float) -> None:
        """Once somebody is slow, here or at a peer: what the clocks of this node's GPUs are."""
        watch = self._director.watch
        suspected = self.load["suspects"] or any(
            isinstance(load := status.get("load"), dict) and load.get("suspects")
            for status in (watch.statuses().values() if watch is not None else ())
        )
        if self._has_gpus and suspected and now - self._asked >= AGAIN:
            self._asked = now
            threading.Thread(target=self._clocks, name="clocks", daemon=True).start()

    def _clocks(self) -> None:
        command = [sys.executable, "-m", "entrypoint.node.machine.now", "--clocks"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=GPUS, check=False)
            self._gpus = from_json(done.stdout)
        except (OSError, ValueError, subprocess.TimeoutExpired):
            self._gpus = []  # that a driver is silent is told where the stacks are


def _numbers(total: Total) -> dict[str, float]:
    return {name: round(value, 2) for name, value in dataclasses.asdict(total).items()}
