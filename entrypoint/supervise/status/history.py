"""What happened, with times: state and phase of each process and the peers' clocks, whenever they change.

The runner's own lines stand in the same file (`output.forwarding`), so that `glm47-runner diagnose` can put
the nodes of a job in order although log lines carry their writers' times, or none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

CHANGES = ("state", "ready", "phase", "pid", "exit_code", "restarts")
"""Fields of a process in the status."""
CLOCK_STEP = 0.1
"""Seconds by which a peer's clock must differ from what was recorded."""


class History:
    """Compares each status with the one before; `record` gets an event for each change."""

    def __init__(self, record: Callable[[Mapping[str, object]], None]) -> None:
        self._record = record
        self._processes: dict[str, tuple[object, ...]] = {}
        self._clocks: dict[str, float] = {}
        self._state: object = None

    def turn(self, status: Mapping[str, Any]) -> None:
        """Take a status in."""
        for process in status["processes"]:
            seen = tuple(process.get(name) for name in CHANGES)
            if self._processes.get(process["name"]) != seen:
                self._processes[process["name"]] = seen
                self._record({"process": process["name"], **dict(zip(CHANGES, seen, strict=True))})
        for node, clock in status["clocks"].items():
            known = self._clocks.get(node)
            if known is None or abs(known - clock["offset"]) >= CLOCK_STEP:
                self._clocks[node] = clock["offset"]
                self._record({"clock_of": node, **clock})
        if status["state"] != self._state:
            self._state = status["state"]
            whole = ("version", "state", "node", "roles", "rank", "nnodes", "reason", "exit_code")
            self._record({name: status[name] for name in whole})
