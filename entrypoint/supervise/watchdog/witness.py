"""Looks where the ranks stand once something does not get on, here or on a peer, and names the one behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from entrypoint.plan.run_files import STACK_HOOK
from entrypoint.plan.types import Plan
from entrypoint.supervise import process_tree
from entrypoint.supervise.lifecycle.actions import Action, Say
from entrypoint.supervise.lifecycle.behind import behind, places_of
from entrypoint.supervise.lifecycle.director import Director
from entrypoint.supervise.lifecycle.process import Proc
from entrypoint.supervise.lifecycle.states import State
from entrypoint.supervise.watchdog.pace import Paces, Steps
from entrypoint.supervise.watchdog.quota import EVERY, Quotas
from entrypoint.supervise.watchdog.stacks import STOPPED, collect

SILENT = 120.0
"""Seconds without a line in a start after which it is looked at: a look takes half a processor's second."""
AGAIN = 300.0
"""Seconds between two looks at the same engine."""
JOIN = 20.0
"""Seconds after a look within which the peers' are waited for, to name one rank among all."""
BELOW = 16
"""Processes of one whose control groups are looked at."""
FILES = 6
"""Files of stacks that are kept in one directory for one process."""


class Witness:
    """One thread for each look, at most one at a time. `turn` belongs to the loop, and never waits."""

    def __init__(self, plan: Plan, director: Director, steps: Steps) -> None:
        """`steps`: those of a start that a process's log has told of."""
        self._plan, self._director = plan, director
        self._paces = Paces(plan, director, steps)
        self._looked: dict[str, float] = {}
        self._busy = threading.Lock()
        self._news: list[str] = []
        self.found: dict[str, dict[str, Any]] = {}
        """What was seen, by process: part of the status."""
        self._quotas: dict[str, Quotas] = {}
        self._quotas_at = 0.0
        self.line: str | None = None
        """Which rank is behind."""

    def turn(self, now: float) -> Iterator[Action]:
        """Begin a look where one is due at the monotonic time `now`; say what was found."""
        for proc in self._director.procs.values():
            why = self._why(proc, now)
            if why is not None and now - self._looked.get(proc.spec.name, -AGAIN) >= AGAIN:
                self._looked[proc.spec.name] = now
                since = time.time() - (proc.stuck.seconds if proc.stuck is not None else now - proc.last_sign)
                arguments = (proc.spec.name, proc.pid, why, since)
                threading.Thread(target=self._look, args=arguments, name="stacks", daemon=True).start()
        while self._news:
            yield Say(self._news.pop(0))
        yield from self._join(now)
        yield from self._paces.turn(now)
        if now >= self._quotas_at:
            self._quotas_at = now + EVERY
            yield from self._held_back()

    def with_evidence(self, extra: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """`extra`, fields of the status by process, with what was seen of each."""
        for kind, seen in (("evidence", self.found), ("pace", self._paces.paces)):
            for name, each in [*seen.items()]:
                extra.setdefault(name, {})[kind] = each
        return extra

    def fields(self) -> dict[str, Any]:
        """Those of the whole container: which rank is behind, who is slow, what holds this node up."""
        return {"behind": self.line, "slow": self._paces.slow, "load": self._paces.load}

    def _held_back(self) -> Iterator[Action]:
        for name, proc in self._director.procs.items():
            if proc.pid is None or proc.state is not State.RUNNING:
                continue
            quotas = self._quotas.setdefault(name, Quotas())
            share = quotas.look(iter([proc.pid, *process_tree.children(proc.pid)][:BELOW]))
            if share is not None:
                yield Say(
                    f"{name} is slow: its processor quota was used up in {share:.0%} of the last "
                    f"{EVERY:.0f} s: raise the container's processor limit (cpu.max of its control group)"
                )

    def _why(self, proc: Proc, now: float) -> str | None:
        if not proc.spec.vital or proc.state is not State.RUNNING or proc.pid is None:
            return None
        if proc.stuck is not None:
            return "it does not get on"
        if proc.ready_at is None and now - proc.last_sign >= SILENT:
            return f"its start has been silent for {SILENT:.0f} s"
        watch = self._director.watch
        troubled = watch is not None and any(
            process.get("stuck") or process.get("evidence")
            for status in watch.statuses().values()
            for process in status.get("processes", ())
        )
        return "another rank of its job does not get on" if troubled else None

    def _look(self, name: str, pid: int, why: str, since: float) -> None:
        with self._busy:
            directory = Path(self._plan.log_dir or self._plan.run_dir)
            names = self._plan.job.log_names if self._plan.job is not None else {}
            stem = f"{names.get(name, name)}."
            try:
                old = sorted(directory.glob(f"{stem}*.stacks"))
                for file in old[: max(0, len(old) - FILES + 1)]:
                    file.unlink()
                file = directory / f"{stem}{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.stacks"
                hooks = Path(self._plan.run_dir).absolute() / STACK_HOOK
                places = collect(name, pid, file, self._plan.process(name).env, hooks)
            except OSError as error:
                self._news.append(f"cannot look where {name} stands: {error}: make room there")
                return
        ranks = [p for p in places if p.scheduler]
        self.found[name] = {
            "why": why,
            "since": since,
            "file": str(file),
            "ranks": [
                {
                    "title": p.title,
                    "pid": p.pid,
                    "stopped": p.state in STOPPED,
                    "collective": p.collective,
                    "doing": str(p),
                }
                for p in ranks
            ],
        }
        self._news.append(f"{name}: {why}: where its {len(places)} processes stand is in {file}")

    def _join(self, now: float) -> Iterator[Action]:
        """The leader of a worker names the rank behind, once it knows of all of them or has waited enough."""
        for name, mine in [*self.found.items()]:
            looked = self._looked.get(name, now)
            watch = self._director.watch
            peers = watch.statuses() if watch is not None else {}
            node = self._plan.job.node if self._plan.job is not None else ""
            places = places_of(node, mine)
            known = 1
            for peer, status in peers.items():
                theirs = [p.get("evidence") for p in status.get("processes", ()) if p.get("name") == name]
                found = [place for each in theirs for place in places_of(peer, each)]
                known += bool(found)
                places += found
            if mine.get("told") or (known < self._plan.nnodes and now - looked < JOIN):
                continue
            mine["told"] = True
            since = time.strftime("%H:%M:%SZ", time.gmtime(mine["since"]))
            line = behind(places, since)
            if line is not None and self._plan.rank == 0:
                self.line = f"{name}: {line}"
                yield Say(self.line)
