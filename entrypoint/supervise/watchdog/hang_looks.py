"""Looks at engines for `hang`: /proc, and the worker's own page of metrics. One thread per engine.

A look reads two small files per process and one page; while requests wait unanswered it also walks over the
engine's threads, to see whether something compiles.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from entrypoint.plan.types import HangWatch
from entrypoint.supervise import process_tree
from entrypoint.supervise.lifecycle.looks import Finding, Requests
from entrypoint.supervise.probes.asking import samples
from entrypoint.supervise.watchdog.hang import INTERVAL, Detector, Look, Thread
from entrypoint.supervise.watchdog.lookouts import Lookouts
from entrypoint.supervise.watchdog.vital import Tree, for_new_ones

if TYPE_CHECKING:
    import httpx

TIMEOUT = 1.5
"""Seconds that the page of metrics may take: shorter than the time between two looks."""
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Engine:
    """What is looked at, and whom to ask about it."""

    name: str
    life: int
    pid: int
    vital: tuple[str, ...]
    limits: HangWatch
    settled: Callable[[], bool]
    """Whether it has started all that it needs."""
    batches: Callable[[], int]
    """Lines so far in which it says that it has begun a batch; counted while requests wait unanswered."""


class HangLookout(Lookouts):
    """Looks at engines until they are forgotten; what each look finds goes to `report`, in another thread."""

    def __init__(
        self, report: Callable[[str, int, Finding], None], client: Callable[[], httpx.Client]
    ) -> None:
        super().__init__()
        self._report, self._client = report, client

    def watch(self, engine: Engine) -> None:
        """Look at `engine` from now on."""
        self.start(engine.name, f"hang-{engine.name}", self._run, engine)

    def _run(self, engine: Engine, end: threading.Event) -> None:
        processes = Tree(engine.pid, engine.vital)
        detector = Detector(engine.limits.waits_for_others)
        quiet, took = 0, 0.0
        while not end.wait(pause(took)):
            began = time.monotonic()
            settled = engine.settled()
            quiet = quiet + 1 if settled else 0
            if for_new_ones(quiet):
                processes.find()
            look = self._look(engine, processes, detector.suspects, settled)
            stuck = detector.look(look)
            if end.is_set():
                return
            self._report(engine.name, engine.life, Finding(stuck, look.requests, detector.suspects))
            took = time.monotonic() - began

    def _look(self, engine: Engine, processes: Tree, thorough: bool, ask: bool) -> Look:
        known = {engine.pid: "", **{process.pid: process.title for process in processes.living()}}
        seen = [read_thread(pid, title or engine.name, thorough) for pid, title in known.items()]
        return Look(
            threads=tuple(thread for thread in seen if thread is not None),
            requests=_requests(engine.limits, self._client()) if ask and engine.limits.metrics else None,
            helpers=helpers(engine.pid, known) if thorough else None,
            batches=engine.batches(),
        )


def pause(took: float) -> float:
    """Seconds until the next look after one that took so long: the limits are counted in looks.

    A page of metrics that does not answer takes most of an interval, and a stopped process has such a page.
    """
    return max(INTERVAL / 4, INTERVAL - took)


def read_thread(pid: int, title: str, thorough: bool = True) -> Thread | None:
    """The main thread of process `pid`; None when it is gone. `thorough`: with the place where it waits."""
    task = Path(f"/proc/{pid}/task/{pid}")
    try:
        fields = (task / "stat").read_text(errors="replace").rpartition(")")[2].split()
        status = (task / "status").read_text(errors="replace")
    except OSError:
        return None
    where = ""
    if thorough:
        with contextlib.suppress(OSError):
            where = (task / "wchan").read_text().partition(".")[0]
    _, found, rest = status.partition("\nvoluntary_ctxt_switches:")
    waits = int(rest.split(None, 1)[0]) if found else 0
    user, system = int(fields[11]) / TICK, int(fields[12]) / TICK
    return Thread(title, pid, fields[0], user, system, waits, "" if where == "0" else where)


def helpers(pid: int, known: dict[int, str]) -> float:
    """Processor time (seconds) of all processes below `pid` but the `known`, the ended ones included."""
    stat = process_tree.read_stat(pid)
    if stat is None:
        return 0.0
    used = stat.children_ticks if pid in known else stat.children_ticks + stat.ticks
    return used / TICK + sum(helpers(child, known) for child in process_tree.children(pid))


def _requests(limits: HangWatch, client: httpx.Client) -> Requests | None:
    import httpx

    assert limits.metrics is not None
    try:
        text = client.get(limits.metrics, timeout=TIMEOUT).raise_for_status().text
    except httpx.HTTPError:
        return None
    in_flight, begun, answered = samples(
        text, (limits.in_flight, limits.begun, limits.answered), limits.labelled
    )
    # A page that has none of them is an engine that has not been asked anything yet, or another release's.
    if in_flight is None or begun is None or answered is None:
        return None
    return Requests(in_flight, begun, answered)
