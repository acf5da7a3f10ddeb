"""The control socket: supervisor's XML-RPC interface on a Unix socket of mode 0600.

`supervisorctl -s unix://…/supervisor.sock status` works. What starts and stops is the plan's
decision, so calls that would start or stop a single process are refused; shutdown is allowed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from entrypoint.errors import CannotWriteError


def open_socket(supervisord: Any, path: Path) -> Any:
    """Listen on `path`; returns the server. CannotWriteError (73) when it cannot be made."""
    from supervisor.http import supervisor_af_unix_http_server
    from supervisor.xmlrpc import SystemNamespaceRPCInterface, supervisor_xmlrpc_handler

    try:
        server = supervisor_af_unix_http_server(
            str(path), 0o600, (os.getuid(), os.getgid()), logger_object=_Quiet()
        )
    except (OSError, ValueError) as error:
        raise CannotWriteError(
            f"cannot make the control socket: {path}: {error}: choose a GLM47_RUN_DIR that is writable "
            "and short (a socket's path has at most 107 bytes)"
        ) from None
    interfaces = [("supervisor", make_interface(supervisord))]
    interfaces.append(("system", SystemNamespaceRPCInterface(interfaces)))
    server.install_handler(supervisor_xmlrpc_handler(supervisord, interfaces))
    return server


class _Quiet:
    """Access lines of a private socket are no news."""

    def log(self, *args: object) -> None:
        return None


def make_interface(supervisord: Any, **config: str) -> Any:
    """An rpcinterface factory, supervisor's documented seam."""
    from supervisor.rpcinterface import SupervisorNamespaceRPCInterface
    from supervisor.xmlrpc import Faults, RPCError

    def refuse(name: str) -> Any:
        def call(*args: object) -> None:
            raise RPCError(Faults.FAILED, f"{name}: the plan decides what runs; stop the whole container")

        call.__doc__ = f"Refused: the plan decides what runs.\n\n@return boolean {name} never succeeds"
        return call

    refused = (
        "startProcess startProcessGroup startAllProcesses stopProcess stopProcessGroup stopAllProcesses "
        "restart reloadConfig addProcessGroup removeProcessGroup sendProcessStdin"
    )
    methods = {name: refuse(name) for name in refused.split()}
    return type("Interface", (SupervisorNamespaceRPCInterface,), methods)(supervisord)
