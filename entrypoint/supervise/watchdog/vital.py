"""Watches the processes that an engine starts for itself and cannot do without.

SGLang 0.5.6.post2's main process does not notice that a scheduler of its own was killed or aborted: it goes
on as if nothing had happened, and requests hang for ever. The kernel keeps the dead process as a zombie, with
its name and exit status, until its parent asks for it; a parent that asks and yet goes on is seen by the
process being gone.

Everything here happens in a thread of its own per engine: a walk over an engine's threads takes milliseconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from entrypoint.supervise import process_tree
from entrypoint.supervise.child import exit_code
from entrypoint.supervise.lifecycle.verdicts import Dead
from entrypoint.supervise.watchdog.lookouts import Lookouts

INTERVAL = 2.0
"""Seconds between two looks."""
LOOKS = 6
"""Looks in a row that must find a process dead. An engine that notices by itself ends within 6 s: its own
end tells more. Looks instead of seconds: a container that was paused has not had its time."""
SUSPECTS = 2
"""Looks after which it explains its engine's own end, of which the log does not say why: an engine that kills
itself kills the others first, in less time than there is between two looks."""
SURE, ALL = 5, 30
"""Once the engine is ready, so many first looks and every so manyth later one are for new processes too; the
others only for known ones."""
COMM = 15
"""Bytes that the kernel keeps of a process's name."""


@dataclass
class VitalProcess:
    """One vital process, as long as it has been known."""

    title: str
    pid: int
    started: int
    code: int | None = None
    looks: int = 0
    """How often in a row it was found dead."""


@dataclass
class Tree:
    """The vital processes below process `pid`. Reads /proc, nothing else."""

    pid: int
    vital: tuple[str, ...]
    looks: int = LOOKS
    _known: dict[tuple[int, int], VitalProcess] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._short = {title.encode()[:COMM].decode(errors="replace"): title for title in self.vital}

    def find(self) -> None:
        """Look for vital processes that are not known yet, dead or alive."""
        self._walk(self.pid, "")

    def _walk(self, pid: int, above: str) -> None:
        # The children first: one that its parent forked under its title is then compared with that title.
        children = process_tree.children(pid)
        stat = process_tree.read_stat(pid)
        if stat is None:
            return
        key = (pid, stat.started)
        # A process that has its parent's name is a copy that the parent made for a task of its own.
        if stat.comm in self._short and stat.comm != above and key not in self._known:
            title, least = process_tree.title(pid), self._short[stat.comm]
            self._known[key] = VitalProcess(title if title.startswith(least) else least, *key)
        for child in children:
            self._walk(child, stat.comm)

    def living(self) -> list[VitalProcess]:
        """The known vital processes that are there; a dead one that nobody has reaped is not."""
        stats = [(process, process_tree.read_stat(process.pid)) for process in self._known.values()]
        return [p for p, stat in stats if stat is not None and stat.started == p.started and not stat.dead]

    def dead(self) -> Dead | None:
        """Look once more: the vital process that was found dead often enough."""
        main = process_tree.read_stat(self.pid)
        if main is None or main.dead:
            return None  # that end is the runner's to see
        for process in self._known.values():
            self._look(process)
        return self.missed(self.looks)

    def missed(self, looks: int) -> Dead | None:
        """A vital process that the last `looks` looks found dead, the one with the most telling end first."""
        found = [p for p in [*self._known.values()] if p.looks >= looks]
        found.sort(key=lambda p: (not p.code, p.code is None))
        return Dead(found[0].title, found[0].pid, found[0].code) if found else None

    def killed(self) -> Dead | None:
        """A known vital process that a signal has ended while the main one lives. Safe from any thread."""
        main = process_tree.read_stat(self.pid)
        if main is None or main.dead:
            return None
        for process in [*self._known.values()]:
            stat = process_tree.read_stat(process.pid)
            if stat is None or stat.started != process.started or not stat.dead:
                continue
            code = exit_code(stat.status)
            if code > 128:
                return Dead(process.title, process.pid, code)
        return None

    def _look(self, process: VitalProcess) -> None:
        stat = process_tree.read_stat(process.pid)
        same = stat is not None and stat.started == process.started
        if same and stat is not None and stat.dead:
            process.code = exit_code(stat.status)
        elif same:
            return
        process.looks += 1


def for_new_ones(quiet: int) -> bool:
    """Whether a look is for new processes too: the `quiet`th since the engine was ready; 0: it was not."""
    return quiet <= SURE or quiet % ALL == 1


class Lookout(Lookouts):
    """One thread per process that has vital processes of its own; what it finds goes to `report`."""

    def __init__(self, report: Callable[[str, int, Dead], None]) -> None:
        super().__init__()
        self._report = report
        self._trees: dict[str, Tree] = {}

    def suspect(self, name: str) -> Dead | None:
        """The vital process that was dead before `name` ended, if one was."""
        tree = self._trees.get(name)
        return tree.missed(SUSPECTS) if tree is not None else None

    def killed(self) -> tuple[str, Dead] | None:
        """Who goes on without a process that a signal has ended, and that one. Safe from any thread."""
        found = ((name, tree.killed()) for name, tree in [*self._trees.items()])
        return next(((name, dead) for name, dead in found if dead is not None), None)

    def watch(
        self, name: str, pid: int, vital: tuple[str, ...], life: int, settled: Callable[[], bool]
    ) -> None:
        """Watch process `name`; `settled` tells whether it has started all that it needs."""
        tree = self._trees[name] = Tree(pid, vital)
        self.start(name, f"vital-{name}", self._run, name, tree, life, settled)

    def _run(
        self, name: str, below: Tree, life: int, settled: Callable[[], bool], end: threading.Event
    ) -> None:
        quiet = 0
        while not end.wait(INTERVAL):
            quiet = quiet + 1 if settled() else 0
            if for_new_ones(quiet):
                below.find()
            dead = below.dead()
            if dead is not None:
                self._report(name, life, dead)
                return
