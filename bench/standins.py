"""Stand-ins for the ports of etcd, NATS and the worker, so that readiness comes at a known moment."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

HTTP_OK = b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\nConnection: close\r\n\r\n{"health":"true"}'
NATS_INFO = b'INFO {"version":"2.15.1","jetstream":true}\r\n'


class StandIn:
    """A port that refuses connections until `open`, and then gives everyone the same answer."""

    def __init__(self, port: int, answer: bytes, *, asks: bool) -> None:
        self._answer, self._asks = answer, asks
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def open(self) -> float:
        """Listen from now on; returns when that was (monotonic seconds)."""
        self._socket.listen()
        now = time.monotonic()
        self._thread.start()
        return now

    def close(self) -> None:
        # Closing alone would leave the thread in accept().
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                if self._asks:
                    connection.recv(65536)
                connection.sendall(self._answer)


def http(port: int) -> StandIn:
    """200 to every request, as the /health of etcd and of a worker, once open."""
    return StandIn(port, HTTP_OK, asks=True)


def nats(port: int) -> StandIn:
    """Greets as a NATS server with JetStream does, once open."""
    return StandIn(port, NATS_INFO, asks=False)
