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
SKEW = 2.0
"""Seconds that a peer's clock may be off before it is told: lines of both logs are out of order then."""


class History:
    """Compares each status with the one before; `record` gets an event for each change.

    `say` gets a line for a peer's clock that is off, and again when it is off by SKEW more or less.
    """

    def __init__(self, record: Callable[[Mapping[str, object]], None], say: Callable[[str], None]) -> None:
        self._record, self._say = record, say
        self._told: dict[str, float] = {}
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
            self._tell(node, clock["offset"], clock["round_trip"] / 2)
        if status["state"] != self._state:
            self._state = status["state"]
            whole = ("version", "state", "node", "roles", "rank", "nnodes", "reason", "exit_code")
            self._record({name: status[name] for name in whole})

    def _tell(self, node: str, ahead: float, error: float) -> None:
        """`ahead`: seconds that its clock is ahead of ours; `error`: seconds that this may be wrong by."""
        known = self._told.get(node, 0.0)
        if abs(ahead - known) - error < SKEW:
            return
        self._told[node] = ahead
        if abs(ahead) - error < SKEW:
            self._say(f"the clock of {node} is right again")
            return
        how = "ahead of" if ahead > 0 else "behind"
        self._say(
            f"the clock of {node} is {abs(ahead):.1f} s {how} this node's: times in their logs cannot be "
            "compared, and certificates may not be valid: let both follow one server (NTP)"
        )
