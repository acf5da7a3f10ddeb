"""The health port as port scanners, broken proxies and impatient clients meet it: an answer or a hang-up, and
never a thread, a descriptor or a probe less."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.plans import plan, process
from tests.support.runner import Runner, free_port, until

PATIENCE = 5.0
"""Seconds for an answer on a machine with much else to do."""


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    says = "for i in $(seq 100); do echo line $i; done; exec sleep 1000"
    made = plan(process("decode", argv=("bash", "-c", says)), health_port=free_port())
    with Runner.of_plan(made, tmp_path_factory.mktemp("run")) as found:
        found.wait_for("ready after")
        found.wait_for("line 100")
        yield found
        assert found.get("/livez")[0] == 200
        found.signal(15)
        assert found.wait() == 0


def connected(runner: Runner) -> socket.socket:
    return socket.create_connection(("127.0.0.1", runner.health_port), PATIENCE)


def ask(runner: Runner, request: bytes) -> bytes:
    """What comes before the other side hangs up; the request is all that is sent."""
    answer = b""
    with connected(runner) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        while data := connection.recv(65536):
            answer += data
    return answer


def descriptors(runner: Runner) -> int:
    return len([*Path(f"/proc/{runner.process.pid}/fd").iterdir()])


METHODS = {
    "HEAD": b"200", "GET": b"200", "get": b"501", "PUT": b"501", "DELETE": b"501", "OPTIONS": b"501",
    "TRACE": b"501", "CONNECT": b"501", "PATCH": b"501", "X" * 70_000: b"414", "\x00": b"501",
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method[:8])
def test_methods(runner: Runner, method: str) -> None:
    answer = ask(runner, f"{method} /status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert answer.split(b" ", 2)[1] == METHODS[method]


PATHS = {
    "/logs/../plan": 404,
    "/logs/%2e%2e/plan": 404,
    "/logs/..%2f..%2fetc%2fpasswd": 404,
    "/logs/": 404,
    "/logs": 404,
    "/logs/none": 404,
    "/logs/decode%00": 404,
    "/logs/" + "x" * 5000: 404,
    "/status?x=" + "y" * 70_000: 414,
    "/status/": 200,
    "//status": 200,
    "/./status": 404,
    "http://x/status": 404,
    "*": 404,
    "/%ff": 404,
    "/é": 404,
    "/readyz?x=1": 200,
    "/?token=x": 200,
    "/favicon.ico": 404,
    "/.env": 404,
    "/metrics/../plan": 404,
}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[:24])
def test_paths(runner: Runner, path: str) -> None:
    answer = ask(runner, f"GET {path} HTTP/1.0\r\n\r\n".encode())
    assert int(answer.split(b" ", 2)[1]) == PATHS[path], answer[:100]
    if PATHS[path] == 404:
        told = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert told["error"].startswith("no such") and "/status" in told["pages"]


@pytest.mark.parametrize("lines", ["-1", "0", "3", "1000000000", "1e3", "x", "", "3&lines=5", "%33"])
def test_numbers_of_lines(runner: Runner, lines: str) -> None:
    answer = ask(runner, f"GET /logs/decode?lines={lines} HTTP/1.0\r\n\r\n".encode())
    body = answer.partition(b"\r\n\r\n")[2].decode()
    assert answer.split(b" ", 2)[1] == b"200"
    shown = body.splitlines()
    assert len(shown) <= 101 and all(line.startswith("line ") for line in shown)
    assert shown == [] or shown[-1] == "line 100"


RAW = {
    "nothing": b"",
    "line ends": b"\r\n\r\n",
    "half a word": b"GE",
    "half a line": b"GET /status HTT",
    "no version": b"GET /status\r\n\r\n",
    "another version": b"GET /status HTTP/9.9\r\n\r\n",
    "no number for a version": b"GET /status HTTP/x.y\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    "a redis client": b"*1\r\n$4\r\nPING\r\n",
    "many headers": b"GET /status HTTP/1.1\r\n" + b"X: y\r\n" * 500 + b"\r\n",
    "a long header": b"GET /status HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    "a header without a colon": b"GET /status HTTP/1.1\r\nConnection close\r\n\r\n",
    "a body that does not come": b"GET /status HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
    "a length that is none": b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    "a length below zero": b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    "chunks that are none": b"POST /status HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    "two requests": b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
    "noise": bytes(range(256)) * 64,
}


@pytest.mark.parametrize("request_", RAW.values(), ids=RAW)
def test_whatever_is_sent(runner: Runner, request_: bytes) -> None:
    before = descriptors(runner)
    try:
        answer = ask(runner, request_)
    except OSError:  # what it did not read, it refuses
        answer = b""
    assert b"Traceback" not in answer
    assert runner.get("/livez")[0] == 200
    until(lambda: descriptors(runner) <= before, "the connection is closed")


def test_clients_that_ask_nothing_and_go(runner: Runner) -> None:
    before = descriptors(runner)
    idle = [connected(runner) for _ in range(200)]
    assert runner.get("/readyz")[0] == 200
    for connection in idle:
        connection.close()
    until(lambda: descriptors(runner) <= before, "they are let go")


def test_clients_that_reset_while_they_are_answered(runner: Runner) -> None:
    before = descriptors(runner)
    for path in ("/events", "/logs/decode?lines=100", "/", "/metrics") * 10:
        with connected(runner) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00" + bytes(4))
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert runner.get("/readyz")[0] == 200
    until(lambda: descriptors(runner) <= before, "they are let go")


def test_nothing_of_it_is_in_the_log(runner: Runner) -> None:
    """A scanner must not fill a log that somebody reads for a cause."""
    assert "Traceback" not in runner.text()
    assert "GET /" not in runner.text()
    assert Path(f"/proc/{runner.process.pid}").exists()
