"""A port of etcd, NATS or the worker, opened by a process below it: the runner believes no stranger's answer.

Run by a child's script with what to answer and the port; with `later`, a line of standard input opens it.
Only where ports are asked does a child get one.
"""

from __future__ import annotations

import contextlib
import socket
import sys

ANSWERS = {
    "http": b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\nConnection: close\r\n\r\n{"health":"true"}',
    "nats": b'INFO {"version":"2.15.1","jetstream":true}\r\n',
}
"""200 to every request, as /health of etcd and of a worker; the greeting of a NATS server with JetStream."""
PONG = b"PONG\r\n"
"""What NATS says to a client that it lets in, once that has asked PING."""


def serve(kind: str, port: int) -> None:
    """Give everyone the same answer, for ever. OSError when the port is taken."""
    with socket.create_server(("127.0.0.1", port)) as server:
        while True:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                if kind == "http":
                    connection.recv(65536)
                connection.sendall(ANSWERS[kind])
                if kind == "nats" and connection.recv(65536):
                    connection.sendall(PONG)


if __name__ == "__main__":
    if sys.argv[3:] == ["later"]:
        sys.stdin.readline()
    serve(sys.argv[1], int(sys.argv[2]))
