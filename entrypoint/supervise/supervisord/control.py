"""The control socket: `supervisorctl -s unix://…/supervisor.sock status`, on a Unix socket of mode 0600.

The socket is there before the first process starts; the package behind it is loaded when somebody first
connects, in a thread, so that neither the start nor a runner that nobody asks pays for it.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from entrypoint.errors import CannotWriteError
from entrypoint.supervise.lifecycle.actions import Action, Say
from entrypoint.supervise.supervisord.views import Controlled

MODE = 0o600
BACKLOG = 16
CONNECTIONS = 16
"""Clients at a time: one more, and the oldest connection is closed. Descriptors are for the processes."""


class ControlSocket:
    """Handlers for the loop, by descriptor: first one that waits for a connection, then the package's."""

    def __init__(self, path: Path) -> None:
        """Listen on `path`. CannotWriteError (73) when it cannot be made."""
        self._path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            path.unlink(missing_ok=True)  # an earlier run's: the run directory is ours alone
            os.fchmod(self._listener.fileno(), MODE)  # before it has a name, so it never had another mode
            self._listener.bind(str(path))
            self._listener.listen(BACKLOG)
        except OSError as error:
            self._listener.close()
            raise CannotWriteError(
                f"cannot make the control socket: {path}: {error.strerror or error}: choose a GLM47_RUN_DIR "
                "that is writable and short (a socket's path has at most 107 bytes)"
            ) from None
        self._waiting: dict[int, Any] = {}
        self._served: Mapping[int, Any] = {}

    def start(
        self, controlled: Controlled, post: Callable[[Callable[[float], Iterable[Action]]], None]
    ) -> None:
        """Answer from now on. `post` has the loop call a function; it must be safe from any thread."""

        def load() -> None:
            try:
                from entrypoint.supervise.supervisord import server
            except Exception as error:
                text = f"cannot answer on the control socket: {self._path}: {error!r}: use `status` instead"
                post(lambda now: [Say(text)])
                return
            post(lambda now: attach(server.serve))

        def attach(serve: Callable[[socket.socket, Controlled], Mapping[int, Any]]) -> list[Action]:
            self._served = serve(self._listener, controlled)
            return []

        def connected() -> None:
            self._waiting = {}
            threading.Thread(target=load, name="control", daemon=True).start()

        self._waiting = {self._listener.fileno(): _FirstConnection(connected)}

    def handlers(self) -> Mapping[int, Any]:
        """What the loop is to wait for now."""
        for connection in [*self._served.values()][1 : -CONNECTIONS or None]:  # the first one listens
            connection.close()
        return self._waiting or self._served

    def close(self) -> None:
        """Take the socket's name away."""
        self._path.unlink(missing_ok=True)


class _FirstConnection:
    """It stays in the backlog until the package is there to accept it."""

    def __init__(self, happened: Callable[[], None]) -> None:
        self.handle_read_event = happened

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def handle_error(self) -> None:
        """The next turn tries again."""
