"""The health endpoint over HTTP: probes and /metrics for programs, / /status /plan for people."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from entrypoint.errors import ConfigError
from entrypoint.plan.endpoint import bare

if TYPE_CHECKING:
    from entrypoint.plan.types import Plan
    from entrypoint.supervise.status.pages import Pages

REQUEST_TIMEOUT = 10.0
"""Seconds a client may take for its request; then the connection is closed."""
LARGEST_FORM = 4096
"""Bytes."""
KNOWN = ["/", "/startupz", "/livez", "/readyz", "/status", "/plan", "/metrics"]
CONNECTIONS = 64
"""Clients at a time: one more, and the oldest connection is closed. Descriptors are for the processes."""
SHARE = 4
"""Where there are few descriptors: one part in so many is for clients."""


@dataclass(frozen=True)
class Views:
    """Where the answers come from; each call must be safe from any thread."""

    status: Callable[[], dict[str, Any]]
    turned: Callable[[], float]
    """Seconds since the supervisor's loop last turned."""
    source: Plan | None = None
    """None: there is no plan, and no page but the reason."""
    last_lines: Callable[[str, int], list[str]] = lambda name, lines: []
    """Of a process's output, so many."""
    token: str | None = None
    """What people are asked for where there is no plan to say it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    loaded: list[Pages] = field(default_factory=list)

    def plan(self) -> dict[str, Any]:
        """The plan without its secrets."""
        from entrypoint.plan.types import to_jsonable

        return {} if self.source is None else to_jsonable(self.source)

    @property
    def pages(self) -> Pages:
        """What people look at: loaded when the first one does, and once. Only where there is a plan."""
        from entrypoint.supervise.status.pages import Pages

        assert self.source is not None
        with self.lock:
            if not self.loaded:
                self.loaded.append(Pages(self.source, self.status, self.last_lines))
            return self.loaded[0]

    def finish(self, code: int, reason: str) -> None:
        """The run is over: pages that are open show how it ends, rather than a dead runner."""
        with self.lock:
            pages = [*self.loaded]
        for page in pages:
            page.finish(code, reason)


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


def most_connections() -> int:
    """How many clients there may be at a time."""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return CONNECTIONS if limit == resource.RLIM_INFINITY else max(4, min(CONNECTIONS, limit // SHARE))


def serve(listener: socket.socket, views: Views) -> None:
    """Answer requests on `listener` in a daemon thread, one more thread per request."""
    threading.Thread(target=_serve, args=(listener, views), name="health", daemon=True).start()


def _serve(listener: socket.socket, views: Views) -> None:
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    from entrypoint.supervise.status import metrics, report

    token = views.token if views.source is None else views.source.status_token

    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_TIMEOUT
        protocol_version = "HTTP/1.1"
        server_version = "glm47-runner"
        sys_version = ""

        def do_GET(self) -> None:
            path = self.path.partition("?")[0].rstrip("/") or "/"
            if path in ("/", "/status", "/plan", "/view", "/events") or path.startswith("/logs/"):
                return self._for_people(path)
            if path == "/metrics":
                body, kind = metrics.page(views.status(), views.turned(), self.headers.get("Accept", ""))
                return self._send(200, body, kind)
            if path == "/livez":
                return self._probe(*report.live_probe(views.status(), views.turned()))
            if path == "/readyz":
                return self._probe(*report.ready_probe(views.status()))
            if path == "/startupz":
                return self._probe(*report.startup_probe(views.status()))
            return self._unknown(path)

        do_HEAD = do_GET

        def do_POST(self) -> None:
            """The form that asks for the token."""
            from urllib.parse import parse_qs

            from entrypoint.supervise.status import access

            size = int(self.headers.get("Content-Length") or 0)
            form = (
                parse_qs(self.rfile.read(size).decode(errors="replace")) if 0 < size <= LARGEST_FORM else {}
            )
            shown = form.get("token", [""])[0]
            if self.path != "/" or token is None or not access.same(token, shown):
                self.close_connection = True
                return self._json(401, {"error": "that is not GLM47_STATUS_TOKEN"})
            return self._send(303, b"", "text/html", {"Location": "/", "Set-Cookie": access.cookie(token)})

        def _for_people(self, path: str) -> None:
            from entrypoint.supervise.status import access

            headers = self.headers
            if not access.allowed(token, headers.get("Authorization", ""), headers.get("Cookie", "")):
                if path == "/":
                    return self._send(401, access.FORM, "text/html")
                return self._json(401, {"error": "it asks for GLM47_STATUS_TOKEN as a bearer token"})
            if path == "/status":
                return self._json(200, {**views.status(), "time": time.time()})
            if path == "/plan":
                return self._json(200, views.plan())
            if views.source is None:
                if path != "/":
                    return self._unknown(path)
                reason = f"{views.status()['reason']}\n".encode()
                return self._send(200, reason, "text/plain; charset=utf-8")
            if path == "/":
                from entrypoint.supervise.status.pages import SECURITY

                return self._send(200, views.pages.page(), "text/html; charset=utf-8", SECURITY)
            if path == "/view":
                return self._json(200, views.pages.view())
            if path == "/events":
                return self._stream()
            log = views.pages.log(path.removeprefix("/logs/"))
            if log is None:
                return self._unknown(path)
            return self._send(200, log.encode(errors="replace"), "text/plain; charset=utf-8")

        def _stream(self) -> None:
            """Until the client goes, does not read for REQUEST_TIMEOUT, or is the oldest of too many."""
            self.close_connection = True
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Cache-Control", "no-store")
            self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                # Closed by hand: who leaves must not be counted among those who look.
                with contextlib.closing(views.pages.events()) as events:
                    for event in events:
                        self.wfile.write(event)

        def _unknown(self, path: str) -> None:
            self._json(404, {"error": f"no such page: {path}", "pages": KNOWN})

        def _probe(self, ok: bool, body: dict[str, Any]) -> None:
            self._json(200 if ok else 503, {"ok": ok, **body})

        def _json(self, code: int, body: dict[str, Any]) -> None:
            self._send(code, (json.dumps(body) + "\n").encode(), "application/json")

        def _send(self, code: int, body: bytes, kind: str, more: Mapping[str, str] | None = None) -> None:
            self.send_response(code)
            for name, value in (more or {}).items():
                self.send_header(name, value)
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
        most = most_connections()

        def process_request(self, request: Any, client_address: Any) -> None:
            with self.lock:
                self.connections.append(request)
                if len(self.connections) > self.most:
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
