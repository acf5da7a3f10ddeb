"""What a plan says of the nodes that its container is one of. All durations are seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from entrypoint.settings.origin import HIDDEN


@dataclass(frozen=True)
class Peer:
    """A runner on another node whose fate this one shares."""

    name: str
    """The node."""
    what: str
    """What it holds: `decode worker 0 rank 1`."""
    url: str
    """Its health endpoint."""
    watched: bool = True
    """False: only asked while stopping, about a process that must end first."""


@dataclass(frozen=True)
class PlannedFile:
    """A file that a process needs and the runner writes before anything starts."""

    path: str
    content: str


@dataclass(frozen=True)
class SecretFile:
    """The same, for nobody else to read."""

    path: str
    content: str = field(repr=False, metadata=HIDDEN)


@dataclass(frozen=True)
class JobPlan:
    """What a container does as one node of several: of a Slurm job, or of a LeaderWorkerSet's group."""

    number: int | None
    node: str
    """This node's name."""
    what: str
    """What it holds: `decode worker 0 rank 1`."""
    head: bool
    api_url: str | None
    """Where clients find the deployment's API; None in a group, as `number` is."""
    peers: tuple[Peer, ...]
    peer_timeout: float
    """Seconds from the start within which every watched peer must have answered once (exit 75)."""
    stops_after: Mapping[str, tuple[tuple[str, str], ...]]
    """By process, (peer, process) pairs: when asked to stop, it goes on until those have ended."""
    stop_hold: float
    """Seconds that it goes on for them at most."""
    log_names: Mapping[str, str]
    """By process (and `runner`), the name of its file in `Plan.log_dir`, without suffix."""
    files: tuple[PlannedFile, ...] = ()
    others: tuple[Peer, ...] = ()
    """On the head: every other node, for a page that shows the whole deployment."""
    shared_dir: str | None = None
    """Directory of all runners of this node, made before `Plan.run_dir`; None: that one is the first's."""
