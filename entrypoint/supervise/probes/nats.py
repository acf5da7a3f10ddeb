"""Asking a NATS server as its clients do: it greets, may want TLS, and lets in who shows what it asks for."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

from entrypoint.base import tls
from entrypoint.base.foreign import from_json
from entrypoint.plan.types import NatsProbe

LONGEST = 1 << 16
"""Bytes of a line that NATS may send."""
UNNAMED = ("user", "user")
"""User and password that Dynamo shows where it was given none."""


def lacks(probe: NatsProbe, timeout: float) -> str:
    """Why the server is not ready for `probe`; empty when it is. `timeout` in seconds.

    OSError when it cannot be reached, or says nothing.
    """
    until = time.monotonic() + timeout
    connection = socket.create_connection((probe.host, probe.port), timeout=timeout)
    try:
        lines = _lines(connection, until)
        greeting = next(lines)
        if not greeting.startswith(b"INFO "):
            return f"{probe.where} does not greet as NATS does"
        try:
            info = from_json(greeting[5:])
        except ValueError:
            return f"{probe.where} sends a greeting that is not JSON"
        if not isinstance(info, dict):
            return f"{probe.where} sends a greeting that is not an object"
        if not info.get("jetstream"):
            return f"NATS {info.get('version', '')} at {probe.where} runs without JetStream"
        if why := _speaks(probe, info):
            return why
        if not probe.knocks:
            return ""
        if probe.tls:
            import ssl  # OpenSSL takes 5 MB, and most NATS servers are asked without TLS

            try:
                connection = _over_tls(probe, connection)
                lines = _lines(connection, until)
            except ssl.SSLError as error:
                return f"TLS with NATS at {probe.where}: {error.reason or error}: see to GLM47_NATS_TLS_DIR"
        return _knock(probe, connection, lines)
    finally:
        connection.close()


def _speaks(probe: NatsProbe, info: dict[str, Any]) -> str:
    if info.get("tls_required") and not probe.tls:
        return (
            f"NATS at {probe.where} speaks TLS only: say tls:// in NATS_SERVER, with GLM47_NATS_TLS_DIR for "
            "certificates of your own, and Dynamo 1.5 or newer"
        )
    if probe.tls and not (info.get("tls_required") or info.get("tls_available")):
        return f"NATS at {probe.where} speaks no TLS: give it GLM47_NATS_TLS_DIR too"
    return ""


def _over_tls(probe: NatsProbe, connection: socket.socket) -> socket.socket:
    context = tls.context(f"{probe.tls_dir}/ca.crt", probe.tls_dir)
    if probe.own:
        context.check_hostname = False
    return context.wrap_socket(connection, server_hostname=probe.host)


def _knock(probe: NatsProbe, connection: socket.socket, lines: Iterator[bytes]) -> str:
    """Show what Dynamo shows, and ask for a sign of life."""
    shown: dict[str, Any] = {"auth_token": probe.token}
    if probe.token is None:
        user, password = UNNAMED if probe.user is None else (probe.user, probe.password)
        shown = {"user": user, "pass": password}
    about = {
        "name": "glm47-runner",
        "lang": "python",
        "version": "1",
        "protocol": 1,
        "tls_required": probe.tls,
    }
    said = json.dumps({"verbose": False, "pedantic": False, **about, **shown})
    connection.sendall(f"CONNECT {said}\r\nPING\r\n".encode())
    for line in lines:
        if line.startswith(b"-ERR"):
            return f"NATS at {probe.where} does not let {_who(probe)} in: {_error(line)}"
        if line.startswith(b"PONG"):
            break
    return ""


def _who(probe: NatsProbe) -> str:
    if probe.token is not None:
        return "the token (GLM47_NATS_TOKEN)"
    if probe.user is not None:
        return f"{probe.user} (GLM47_NATS_USERNAME, GLM47_NATS_PASSWORD)"
    return "those without GLM47_NATS_USERNAME and GLM47_NATS_PASSWORD"


def _error(line: bytes) -> str:
    return line[4:].decode(errors="replace").strip(" '\r\n")[:200]


def _lines(connection: socket.socket, until: float) -> Iterator[bytes]:
    """Line by line, what the server sends; the last one without its end where it is too long.

    OSError when one does not come in time.
    """
    found = b""
    while True:
        line, end, rest = found.partition(b"\n")
        if end or len(found) > LONGEST:
            yield line
            found = rest
            continue
        connection.settimeout(max(0.001, until - time.monotonic()))
        more = connection.recv(4096)
        if not more:
            raise ConnectionResetError("the connection was closed")
        found += more
