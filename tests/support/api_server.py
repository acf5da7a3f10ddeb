"""A stand-in for Kubernetes' API server, with the faults that the real one is not asked for.

What it takes is what it was given: the real one judges Events in tests/k8s/test_events.py.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.runner import until

TOKEN = "a-token-that-nobody-may-read"
NAMESPACE = "team-a"


class ApiServer:
    """Use as a context manager. `certificate` has its key; `answer`: a status, or the name of a fault."""

    def __init__(self, certificate: Path, answer: int | str = 201, uid: str | None = None) -> None:
        """`uid`: of the LeaderWorkerSet that may be read; None: it may not."""
        self.answer, self.uid = answer, uid
        self.events: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self._over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                made = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append(f"POST {self.path}")
                assert self.headers["Authorization"] == f"Bearer {TOKEN}"
                if outer.answer == 201:
                    outer.events.append(made)
                outer.reply(self)

            def do_GET(self) -> None:
                outer.asked.append(f"GET {self.path}")
                found = outer.uid is not None
                body = json.dumps({"metadata": {"uid": outer.uid}}).encode() if found else b"{}"
                self.send_response(200 if found else 403)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self) -> tuple[Any, Any]:
                plain, address = super().get_request()
                if outer.answer == "no TLS":
                    return plain, address
                return context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False), address

            def finish_request(self, request: Any, client_address: Any) -> None:
                if outer.answer == "no handshake":
                    outer._over.wait(30)
                with suppress(OSError):
                    super().finish_request(request, client_address)

            def handle_error(self, request: Any, client_address: Any) -> None:
                """What a client does not like is what is tested."""

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]

    def reply(self, handler: BaseHTTPRequestHandler) -> None:
        if isinstance(self.answer, int):
            body = b'{"kind": "Status"}'
            handler.send_response(self.answer)
            if self.answer == 302:
                handler.send_header("Location", "https://203.0.113.1/")
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)
        elif self.answer == "garbage":
            handler.wfile.write(b"\x00\xff\r\n\r\nwhat?\r\n")
        elif self.answer == "silence":
            self._over.wait(30)
        elif self.answer == "closes":
            with suppress(OSError):
                handler.connection.shutdown(socket.SHUT_RDWR)
        elif self.answer == "trickle":
            handler.wfile.write(b"HTTP/1.1 201 Created\r\nContent-Length: 9999\r\n\r\n")
            with suppress(OSError):
                while not self._over.wait(0.1):
                    handler.wfile.write(b" ")
                    handler.wfile.flush()

    def __enter__(self) -> ApiServer:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()

    def until_told(self, number: int) -> list[dict[str, Any]]:
        until(lambda: len(self.events) >= number, f"{number} Events")
        return self.events


def make_account(directory: Path, certificate: Path, token: str = TOKEN) -> Path:
    """A service account as it is mounted."""
    directory.mkdir()
    (directory / "token").write_text(token)
    (directory / "namespace").write_text(NAMESPACE)
    (directory / "ca.crt").write_text(certificate.read_text())
    return directory
