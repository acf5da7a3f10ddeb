"""What the control socket shows of a run, in the shape that supervisor's RPC interface reads.

These are views: the state is the director's, and nothing here changes it. Each attribute is one that
`supervisor.rpcinterface` or `supervisor.xmlrpc` of 4.3.0 reads.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from entrypoint.supervise import process_tree
from entrypoint.supervise.child import Child
from entrypoint.supervise.lifecycle.director import Director
from entrypoint.supervise.lifecycle.states import State

RUNNING_MOOD = 1
"""supervisor's SupervisorStates.RUNNING; shutdown and restart are lower."""
STATES = {
    State.WAITING: 0,
    State.SPAWNING: 10,
    State.RUNNING: 20,
    State.DRAINING: 20,
    State.BACKOFF: 30,
    State.STOPPING: 40,
    State.LEFTOVERS: 100,
    State.ENDED: 100,
}
"""supervisor's ProcessStates for ours: STOPPED, STARTING, RUNNING, BACKOFF, STOPPING, EXITED."""


@dataclass(frozen=True)
class Controlled:
    """What is shown, and the one thing that may be asked."""

    director: Director
    children: Mapping[str, Child]
    log_files: Mapping[str, str]
    """By process: the path of its log; empty without GLM47_LOG_DIR."""
    shutdown: Callable[[], None]
    """Called in the loop: the whole container is to stop."""
    say: Callable[[str], None]


class Logger:
    """supervisor's logger: what it thinks worth a warning becomes a line of ours."""

    level = 30
    handlers: tuple[Any, ...] = ()

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def critical(self, message: str, **values: object) -> None:
        self._say(message % values if values else message)

    error = warn = critical

    def info(self, message: str, **values: object) -> None:
        """supervisor's news are told by the director, in one voice."""

    debug = trace = blather = info

    def log(self, *words: object) -> None:
        """Access lines of a private socket are no news."""

    def close(self) -> None:
        """Nothing to close: the output is the daemon's."""


class Options:
    """Of supervisor's options what its RPC interface looks at."""

    identifier = "glm47-runner"
    logfile = None
    process_group_configs: tuple[Any, ...] = ()

    def __init__(self, controlled: Controlled) -> None:
        self.logger = Logger(controlled.say)
        self._shutdown = controlled.shutdown

    def get_pid(self) -> int:
        return os.getpid()

    @property
    def mood(self) -> int:
        """Always running: while the container stops, `status` still answers."""
        return RUNNING_MOOD

    @mood.setter
    def mood(self, wanted: int) -> None:
        if wanted < RUNNING_MOOD:
            self._shutdown()


@dataclass(frozen=True)
class Config:
    """A process's description."""

    name: str
    stdout_logfile: str | None
    stderr_logfile: None = None
    priority: int = 999


@dataclass(frozen=True, order=False)
class ProcessView:
    """One process, as it is now."""

    config: Config
    child: Child
    director: Director

    def __lt__(self, other: ProcessView) -> bool:
        return self.config.name < other.config.name

    def get_state(self) -> int:
        return STATES[self.director.procs[self.config.name].state]

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def laststart(self) -> int:
        return int(self.child.started_at)

    @property
    def laststop(self) -> int:
        return int(self.child.ended_at)

    @property
    def exitstatus(self) -> int:
        return self.child.code or 0

    @property
    def spawnerr(self) -> str:
        """Shown beside BACKOFF."""
        return self.director.procs[self.config.name].why

    def signal(self, signum: int) -> str | None:
        """Send a signal to the process itself; a text when that could not be."""
        if not self.child.pid:
            return f"{self.config.name} is not running"
        process_tree.signal_process(self.child.pid, signal.Signals(signum))
        return None


@dataclass(frozen=True)
class GroupView:
    """A group of one: supervisor addresses processes by group."""

    config: Config
    processes: Mapping[str, ProcessView]

    def __lt__(self, other: GroupView) -> bool:
        return self.config.name < other.config.name


class RunView:
    """What supervisor's RPC interface takes for its supervisord."""

    def __init__(self, controlled: Controlled) -> None:
        self.options = Options(controlled)
        self.process_groups = {
            name: _group(Config(name, controlled.log_files.get(name)), child, controlled.director)
            for name, child in controlled.children.items()
        }


def _group(config: Config, child: Child, director: Director) -> GroupView:
    return GroupView(config, {config.name: ProcessView(config, child, director)})
