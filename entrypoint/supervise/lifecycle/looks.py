"""What a look at an engine finds: data between the watchdog and the director."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Requests:
    """What the worker says of its requests."""

    in_flight: float
    begun: float
    """Requests that ever came."""
    answered: float
    """Bytes of answers that it ever gave."""


@dataclass(frozen=True)
class Stuck:
    """An engine that does not get on."""

    title: str
    """The process that shows it."""
    pid: int
    doing: str
    """What that one does instead, after `it`."""
    seconds: float
    """For how long, at least."""

    def __str__(self) -> str:
        return f"its process {self.title} (pid {self.pid}) {self.doing}, for {self.seconds:.0f} s"


@dataclass(frozen=True)
class Finding:
    """What one look found."""

    stuck: Stuck | None
    requests: Requests | None
    suspects: bool
    """Requests wait unanswered: lines of its log that tell of batches are wanted."""
