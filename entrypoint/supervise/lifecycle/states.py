"""The states of a process, and every transition between them.

    waiting   -> spawning, ended
    spawning  -> running, ended
    running   -> draining, stopping, leftovers
    draining  -> stopping, leftovers
    stopping  -> leftovers
    leftovers -> backoff, ended
    backoff   -> spawning, ended

docs/states.md shows them as a diagram. Whether a process is ready is its health, not its state.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class State(str, Enum):
    """Process state: whether it runs."""

    WAITING = "waiting"
    """For what it needs. Every process begins here."""
    SPAWNING = "spawning"
    """It is to be started at once."""
    RUNNING = "running"
    DRAINING = "draining"
    """Not ready any more, and waiting for its last requests before the stop signal."""
    STOPPING = "stopping"
    """The stop signal is sent."""
    LEFTOVERS = "leftovers"
    """The process itself has ended, members of its group or its orphans live."""
    BACKOFF = "backoff"
    """Nothing of it is left, and it waits to be started again."""
    ENDED = "ended"
    """Nothing of it is left, and it is not started again."""


@dataclass(frozen=True)
class Transition:
    """One step that a process can make."""

    source: State
    target: State
    when: str


TRANSITIONS = (
    Transition(State.WAITING, State.SPAWNING, "all that it needs is ready"),
    Transition(State.WAITING, State.ENDED, "the container stops"),
    Transition(State.SPAWNING, State.RUNNING, "it was started"),
    Transition(State.SPAWNING, State.ENDED, "it cannot be started, or the container stops"),
    Transition(State.RUNNING, State.DRAINING, "the container stops, and it has something to finish"),
    Transition(State.RUNNING, State.STOPPING, "the container stops, it finds no workers, or answers nothing"),
    Transition(State.RUNNING, State.LEFTOVERS, "it ended"),
    Transition(State.DRAINING, State.STOPPING, "it has finished, cannot any more, or its time is over"),
    Transition(State.DRAINING, State.LEFTOVERS, "it ended"),
    Transition(State.STOPPING, State.LEFTOVERS, "it ended"),
    Transition(State.LEFTOVERS, State.BACKOFF, "nothing is left, and it is restarted"),
    Transition(State.LEFTOVERS, State.ENDED, "nothing is left, and it is not restarted"),
    Transition(State.BACKOFF, State.SPAWNING, "its delay is over"),
    Transition(State.BACKOFF, State.ENDED, "the container stops"),
)
"""All there are: `Proc.enter` knows no other."""

ALLOWED = frozenset((t.source, t.target) for t in TRANSITIONS)
ALIVE = frozenset((State.RUNNING, State.DRAINING, State.STOPPING, State.LEFTOVERS))
"""States in which anything of a process may still be running."""


def mermaid() -> str:
    """The transitions as a diagram."""
    lines = [f"    {t.source.value} --> {t.target.value}: {t.when}" for t in TRANSITIONS]
    return "\n".join(["stateDiagram-v2", "    [*] --> waiting", *lines, "    ended --> [*]"])
