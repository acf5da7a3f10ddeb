"""What the director wants done: data, carried out by the daemon."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Spawn:
    """Start the process."""

    name: str


@dataclass(frozen=True)
class Signal:
    """Send the stop signal: to the process, or to all it left behind once it has ended."""

    name: str
    signal: str
    everything: bool = False


@dataclass(frozen=True)
class Drain:
    """Watch the process's requests in flight."""

    name: str


@dataclass(frozen=True)
class Kill:
    """KILL the whole group and the adopted orphans."""

    name: str


@dataclass(frozen=True)
class Unlist:
    """Take the worker off the list that frontends choose from: it answers nothing any more."""

    name: str


@dataclass(frozen=True)
class Say:
    """A line for the person who reads the log."""

    text: str


Action = Spawn | Signal | Drain | Kill | Unlist | Say
