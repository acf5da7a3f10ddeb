"""supervisor's options without its configuration file: the plan is the configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from supervisor.options import ServerOptions


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

    def close(self) -> None:
        """Nothing to close: the output sinks are the daemon's."""


class DaemonOptions(ServerOptions):
    """Defaults for a supervisor that lives inside our process."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.logger = Logger(say)
        self.first = True
        self.test = False
        self.strip_ansi = False
        self.identifier = "glm47-runner"
        self.serverurl = None
        self.server_configs: list[Any] = []
        self.rpcinterface_factories: list[Any] = []
