"""The health endpoint: /startupz /livez /readyz /status /plan /metrics over HTTP."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from entrypoint.errors import ConfigError
from entrypoint.plan.endpoint import bare

REQUEST_TIMEOUT = 10.0
"""Seconds a client may take for its request; then the connection is closed."""
CONNECTIONS = 64
"""Clients at a time: one more, and the oldest connection is closed. Descriptors are for the processes."""


@dataclass(frozen=True)
class Views:
    """Where the answers come from; each call must be safe from any thread."""

    status: Callable[[], dict[str, Any]]
    turned: Callable[[], float]
    """Seconds since the supervisor's loop last turned."""
    plan: Callable[[], dict[str, Any]]


def listen(host: str, port: int) -> socket.socket:
    """Bind the endpoint's socket. ConfigError (78) when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((bare(host), port))
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on GLM47_HEALTH_HOST:GLM47_HEALTH_PORT: {host}:{port}: {error.strerror}: "
            "stop what holds the port, or choose another"
        ) from None
    return listener


def serve(listener: socket.socket, views: Views) -> None:
    """Answer requests on `listener` in a daemon thread, one more thread per request."""
    threading.Thread(target=_serve, args=(listener, views), name="health", daemon=True).start()


def _serve(listener: socket.socket, views: Views) -> None:
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    from entrypoint.supervise.status import metrics, report

    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_TIMEOUT
        protocol_version = "HTTP/1.1"
        server_version = "glm47-runner"
        sys_version = ""

        def do_GET(self) -> None:
            path = self.path.partition("?")[0].rstrip("/") or "/"
            if path == "/metrics":
                body, kind = metrics.page(views.status(), views.turned(), self.headers.get("Accept", ""))
                return self._send(200, body, kind)
            if path == "/status":
                return self._json(200, {**views.status(), "time": time.time()})
            if path == "/plan":
                return self._json(200, views.plan())
            if path == "/livez":
                return self._probe(*report.live_probe(views.status(), views.turned()))
            if path == "/readyz":
                return self._probe(*report.ready_probe(views.status()))
            if path == "/startupz":
                return self._probe(*report.startup_probe(views.status()))
            known = ["/startupz", "/livez", "/readyz", "/status", "/plan", "/metrics"]
            return self._json(404, {"error": f"no such page: {path}", "pages": known})

        do_HEAD = do_GET

        def _probe(self, ok: bool, body: dict[str, Any]) -> None:
            self._json(200 if ok else 503, {"ok": ok, **body})

        def _json(self, code: int, body: dict[str, Any]) -> None:
            self._send(code, (json.dumps(body) + "\n").encode(), "application/json")

        def _send(self, code: int, body: bytes, kind: str) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Probes come every few seconds: they are no news."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        connections: ClassVar[list[socket.socket]] = []
        """Open ones, oldest first."""
        lock = threading.Lock()

        def process_request(self, request: Any, client_address: Any) -> None:
            with self.lock:
                self.connections.append(request)
                if len(self.connections) > CONNECTIONS:
                    # Its handler reads an end of the stream, and closes it.
                    with contextlib.suppress(OSError):
                        self.connections.pop(0).shutdown(socket.SHUT_RDWR)
            super().process_request(request, client_address)

        def close_request(self, request: Any) -> None:
            with self.lock, contextlib.suppress(ValueError):
                self.connections.remove(request)
            super().close_request(request)

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that went away is no news either."""

    server = Server(("", 0), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    server.server_address = listener.getsockname()
    server.serve_forever(poll_interval=3600)
