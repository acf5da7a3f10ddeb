"""supervisor's XML-RPC server and interface over a run. The only module that imports the package.

What starts and stops is the plan's decision, so calls that would start or stop a single process are
refused; shutdown is allowed.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from supervisor.http import supervisor_http_server
from supervisor.medusa.asyncore_25 import socket_map
from supervisor.rpcinterface import SupervisorNamespaceRPCInterface
from supervisor.xmlrpc import Faults, RPCError, SystemNamespaceRPCInterface, supervisor_xmlrpc_handler

from entrypoint.supervise.supervisord.views import Controlled, RunView

REFUSED = (
    *("startProcess", "startProcessGroup", "startAllProcesses"),
    *("stopProcess", "stopProcessGroup", "stopAllProcesses"),
    *("restart", "reloadConfig", "addProcessGroup", "removeProcessGroup", "sendProcessStdin"),
    *("clearLog", "clearProcessLogs", "clearProcessLog", "clearAllProcessLogs"),
)
"""Calls of supervisor's interface that the plan leaves no room for."""


def serve(listener: socket.socket, controlled: Controlled) -> Mapping[int, Any]:
    """Answer on `listener`: the handlers that the loop must wait for from now on, by descriptor."""
    view = RunView(controlled)
    server = _Server(listener, view.options.logger)
    interfaces: list[tuple[str, Any]] = [("supervisor", interface(view))]
    interfaces.append(("system", SystemNamespaceRPCInterface(interfaces)))
    server.install_handler(supervisor_xmlrpc_handler(view, interfaces))  # type: ignore[no-untyped-call]
    handlers: Mapping[int, Any] = socket_map
    return handlers


class _Server(supervisor_http_server):
    """On a socket that listens already."""

    def __init__(self, listener: socket.socket, logger: Any) -> None:
        self.ip = self.port = listener.getsockname()
        self.prebind(listener, logger)  # type: ignore[no-untyped-call]
        self.server_name = "<unix domain socket>"
        self.postbind()  # type: ignore[no-untyped-call]


def interface(view: RunView) -> Any:
    """supervisor's own interface, less what would go against the plan."""

    def refuse(name: str) -> Any:
        def call(self: object, *words: object) -> None:
            text = f"{name}: the plan decides what runs; stop the whole container"
            view.options.logger.warn(f"refused on the control socket: {text}")
            # supervisorctl shows a text for FAILED, except after a start, where it does not know it.
            fault = Faults.FAILED if "start" not in name else Faults.SPAWN_ERROR
            raise RPCError(fault, text)

        call.__doc__ = f"Refused: the plan decides what runs.\n\n@return boolean {name} never succeeds"
        return call

    methods = {name: refuse(name) for name in REFUSED}
    return type("Interface", (SupervisorNamespaceRPCInterface,), methods)(view)
