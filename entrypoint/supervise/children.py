"""The children of one run: started, signalled and reaped, they and what they leave behind.

All belong to the loop's thread. What to do is the director's decision; here it is only done.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from signal import SIGKILL, Signals

from entrypoint.plan.types import Plan
from entrypoint.supervise import process_tree
from entrypoint.supervise.child import Child, OutputReader

LEAVING_POLL = 0.02
"""How often to look whether a group or an orphan is gone, in seconds: nobody tells us."""


class Children:
    """By name, in the plan's order."""

    def __init__(self, plan: Plan, environ: Mapping[str, str]) -> None:
        """`environ` is what every child's environment starts from."""
        self.all = {spec.name: Child(spec) for spec in plan.processes}
        self._environ = environ
        self._by_pid: dict[int, Child] = {}

    def launch(self, name: str, pipe_write: int) -> int:
        """Start `name` with `pipe_write` as its output: its pid. Raises SpawnError."""
        child = self.all[name]
        pid = child.launch(pipe_write, self._environ)
        self._by_pid[pid] = child
        return pid

    def readers(self) -> dict[int, OutputReader]:
        """Whose output can still be read, by descriptor."""
        return {c.reader.output.fd: c.reader for c in self.all.values() if c.reader is not None}

    def reap(self) -> Iterator[tuple[str, int]]:
        """Collect every process that has ended, ours and adopted ones: (name, exit code) of ours."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._by_pid.pop(pid, None)
            if child is not None:
                yield child.spec.name, child.finish(status)

    def gone(self) -> list[str]:
        """Names of those that have ended and of which nothing is left: no member of a group, no orphan."""
        leaving = [
            child
            for child in self.all.values()
            if not child.pid and child.pgid is not None and not process_tree.group_alive(child.pgid)
        ]
        if not leaving:
            return []
        owners = set(process_tree.orphans(self._main_pids()).values())
        gone = [child for child in leaving if child.spec.name not in owners]
        for child in gone:
            child.close_output()
        return [child.spec.name for child in gone]

    def signal(self, name: str, signum: Signals) -> None:
        """Signal the process itself, if it lives."""
        if pid := self.all[name].pid:
            process_tree.signal_process(pid, signum)

    def signal_everything(self, name: str, signum: Signals) -> None:
        """Signal its whole group and its adopted orphans."""
        pgid = self.all[name].pgid
        if pgid is not None:
            process_tree.signal_group(pgid, signum)
        for pid, owner in process_tree.orphans(self._main_pids()).items():
            if owner == name:
                process_tree.signal_process(pid, signum)

    def end_orphans(self) -> Iterator[tuple[str, int]]:
        """Kill and collect what nobody claims: processes that had wiped their environment."""
        deadline = time.monotonic() + LEAVING_POLL * 50
        while (left := process_tree.orphans(())) and time.monotonic() < deadline:
            for pid in left:
                process_tree.signal_process(pid, SIGKILL)
            time.sleep(LEAVING_POLL / 4)
            yield from self.reap()

    def _main_pids(self) -> list[int]:
        return [child.pid for child in self.all.values() if child.pid]
