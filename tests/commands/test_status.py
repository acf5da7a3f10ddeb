"""`status` and `probe` of whatever answers at a runner's address: other servers, other releases, nobody."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from entrypoint.commands.cli import cli
from entrypoint.commands.status import duration, remote_url, table
from entrypoint.errors import ConfigError
from entrypoint.plan.types import Peer
from entrypoint.supervise.peers.poller import ask
from tests.support.runner import free_port

PROCESS = {"name": "decode", "state": "running", "ready": True}
STATUS: dict[str, Any] = {"state": "ready", "ready": True, "processes": [PROCESS]}
"""As little as a status can say."""


@contextmanager
def server(body: bytes, code: int = 200) -> Iterator[int]:
    """Whatever is asked, it answers `body`; gives its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        yield httpd.server_port
        httpd.shutdown()


@contextmanager
def talker(says: bytes) -> Iterator[int]:
    """Says `says` to whoever comes, whatever they ask, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk() -> None:
            while True:
                try:
                    with listener.accept()[0] as connection:
                        connection.recv(4096)
                        connection.sendall(says)
                except OSError:
                    return

        threading.Thread(target=talk, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def run(*words: str, **env: str) -> Any:
    return CliRunner().invoke(cli, [*words], env=env, catch_exceptions=False)


NO_STATUS = {
    "an empty object": b"{}",
    "a list": b"[]",
    "a number": b"1",
    "null": b"null",
    "another server's error": b'{"detail": "Not Found"}',
    "processes that are text": b'{"state": "ready", "ready": true, "processes": "x"}',
    "processes that are numbers": b'{"state": "ready", "ready": true, "processes": [1]}',
    "no processes": b'{"state": "ready", "ready": true}',
    "a state that is none": b'{"state": null, "ready": true, "processes": []}',
    "ready that is a word": b'{"state": "ready", "ready": "yes", "processes": []}',
    "a process without a name": b'{"state": "x", "ready": true, "processes": [{"ready": true}]}',
    "a process without a state": b'{"state": "ready", "ready": true, "processes": [{"name": "decode"}]}',
    "a page": b"<html>502 Bad Gateway</html>",
    "nothing": b"",
    "half an object": b'{"state": "rea',
    "no text": b"\xff\xfe\x00",
    "deeply nested": b"[" * 5000 + b"]" * 5000,
}


@pytest.mark.parametrize("body", NO_STATUS.values(), ids=NO_STATUS)
@pytest.mark.parametrize("code", [200, 404, 502])
def test_what_is_no_status_is_one_line(body: bytes, code: int) -> None:
    with server(body, code) as port:
        for style in ("text", "json"):
            found = run("status", f"--format={style}", f"127.0.0.1:{port}")
            assert (found.exit_code, found.output.count("\n")) == (1, 1), found.output
            assert found.output.startswith(f"glm47-runner: cannot ask http://127.0.0.1:{port}: ")
            assert found.output.endswith(": is the runner up, and this its health port?\n")
            assert str(code) in found.output.replace(str(port), "")


@pytest.mark.parametrize("body", NO_STATUS.values(), ids=NO_STATUS)
def test_one_of_several_that_is_none_leaves_the_others_their_lines(body: bytes) -> None:
    with server(body) as wrong, server(json.dumps(STATUS).encode()) as right:
        found = run("status", f"127.0.0.1:{wrong}", f"127.0.0.1:{right}")
        assert found.exit_code == 1
        rows = [line.split() for line in found.output.splitlines()]
        assert rows[1][:4] == [f"127.0.0.1:{wrong}", "-", "silent", "no"]
        assert rows[2] == [f"127.0.0.1:{right}", "decode", "running", "yes", "0"]
        told = json.loads(run("status", "--format=json", f"127.0.0.1:{wrong}", f"127.0.0.1:{right}").output)
        assert [answer["ready"] for answer in told] == [False, True]


@pytest.mark.parametrize("body", NO_STATUS.values(), ids=NO_STATUS)
def test_a_peer_that_is_something_else_is_no_peer(body: bytes) -> None:
    with server(body) as port:
        answer = ask(Peer("n1", "decode 0 rank 1", f"http://127.0.0.1:{port}"))
        assert answer.status is None and "answers 200 and no" in answer.why


TALK = {
    "not HTTP": b"220 mail.example ESMTP\r\n",
    "a header without an end": b"HTTP/1.1 200 OK\r\nContent-Length: 5",
    "less than it says": b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{}",
    "no length that is one": b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    "a chunk that is none": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "nothing": b"",
    "a long header": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 200 + b"\r\n",
}


@pytest.mark.parametrize("says", TALK.values(), ids=TALK)
def test_what_is_no_http_is_one_line(says: bytes) -> None:
    with talker(says) as port:
        for words in (("status", f"127.0.0.1:{port}"), ("probe", "ready")):
            found = run(*words, GLM47_HEALTH_PORT=str(port))
            assert (found.exit_code, found.output.count("\n")) == (1, 1), found.output
            assert f"cannot ask http://127.0.0.1:{port}: " in found.output


WRONG_KINDS: dict[str, dict[str, Any]] = {
    "nothing more": {},
    "texts for numbers": {"rank": "0", "nnodes": "2", "uptime": "1", "exit_code": "1"},
    "objects for texts": {"reason": {}, "waiting_for": {}, "warnings": {}, "roles": {}, "version": {}},
    "numbers in lists of texts": {"waiting_for": [1], "warnings": [1], "roles": [1]},
    "flags for numbers": {"rank": True, "nnodes": True, "uptime": True},
    "no numbers": {"uptime": float("nan"), "time": float("inf")},
    "nulls": dict.fromkeys(("rank", "nnodes", "uptime", "reason", "waiting_for", "warnings", "roles")),
    "another release's": {"format": 7, "shards": [{"name": "x"}]},
}
WRONG_IN_A_PROCESS: dict[str, dict[str, Any]] = {
    "nothing more": {},
    "texts for numbers": {"age": "1", "restarts": "2", "pid": "3", "requests_in_flight": "x"},
    "no numbers": {"age": float("nan"), "stuck_seconds": float("inf")},
    "objects for texts": {"why": {}, "progress": [], "stuck": {}, "phase": 1},
    "nulls": dict.fromkeys(("age", "restarts", "why", "progress", "stuck", "phase", "phase_seconds")),
}


@pytest.mark.parametrize("process", WRONG_IN_A_PROCESS.values(), ids=WRONG_IN_A_PROCESS)
@pytest.mark.parametrize("fields", WRONG_KINDS.values(), ids=WRONG_KINDS)
def test_a_field_of_another_kind_counts_as_not_said(fields: dict[str, Any], process: dict[str, Any]) -> None:
    status = {**STATUS, **fields, "processes": [{**PROCESS, **process, "ready": False}]}
    with server(json.dumps(status).encode()) as port:
        found = run("status", f"127.0.0.1:{port}")
        assert found.exit_code == 0, found.output
        _, line = found.output.splitlines()
        assert line.split() == [f"127.0.0.1:{port}", "decode", "running", "no", "0"]
        peer = ask(Peer("n1", "decode 0 rank 1", f"http://127.0.0.1:{port}"))
        assert peer.status is not None and peer.clock is None


def test_a_terminal_obeys_no_runner() -> None:
    process = {**PROCESS, "name": "de\x1b[2Jcode", "ready": False, "progress": "5\x07 %", "why": None}
    status = {**STATUS, "reason": "gone\x1b]0;x\x07", "warnings": ["\x9b31m red"], "processes": [process]}
    with server(json.dumps(status).encode()) as port:
        shown = run("status", f"127.0.0.1:{port}").output
    assert "code" in shown and "gone" in shown and "red" in shown
    assert not [c for c in shown if c != "\n" and (ord(c) < 32 or 127 <= ord(c) < 160)]


PROBES = [
    (200, {"state": "ready", "reason": None, "waiting_for": []}, 0, "ready: yes: ready"),
    (503, {"state": "starting", "waiting_for": ["decode: loads"]}, 1, "ready: no: decode: loads"),
    (503, {"state": "stopping", "reason": "asked to stop"}, 1, "ready: no: asked to stop"),
    (503, {"state": "held", "waiting_for": [1], "reason": {}}, 1, "ready: no: held"),
    (200, {}, 1, None),
    (200, [], 1, None),
    (200, {"state": 1}, 1, None),
    (404, {"detail": "Not Found"}, 1, None),
]


@pytest.mark.parametrize(("code", "body", "exits", "line"), PROBES)
def test_a_probe_passes_for_a_runner_alone(code: int, body: object, exits: int, line: str | None) -> None:
    with server(json.dumps(body).encode(), code) as port:
        found = run("probe", "ready", GLM47_HEALTH_PORT=str(port))
        assert found.exit_code == exits
        wrong = f"cannot ask http://127.0.0.1:{port}: it answers {code}, and not as a runner does: "
        wrong += "is the runner up, and this its health port?"
        assert found.output == (wrong if line is None else line) + "\n"


HOSTS = [
    ("nvl72d001", "http://nvl72d001:9480"),
    ("nvl72d001:9490", "http://nvl72d001:9490"),
    ("http://nvl72d001:9490/status", "http://nvl72d001:9490"),
    ("glm47-decode-0.glm47-pods", "http://glm47-decode-0.glm47-pods:9480"),
    ("::1", "http://[::1]:9480"),
    ("fd00::12", "http://[fd00::12]:9480"),
    ("[fd00::12]:9490", "http://[fd00::12]:9490"),
    ("[fd00::12]", "http://[fd00::12]:9480"),
    ("192.0.2.1", "http://192.0.2.1:9480"),
]
NO_HOSTS = (
    "", "http://", "a b", "127.0.0.1:99999", "127.0.0.1:x", "127.0.0.1:-1", "127.0.0.1:0", "[::1", "::1]:5",
    "user:pw@127.0.0.1:1", "ftp://127.0.0.1:1", "https://127.0.0.1:1", "x" * 300, "a\nb", ":9480",
)  # fmt: skip


@pytest.mark.parametrize(("host", "url"), HOSTS)
def test_hosts_as_people_write_them(host: str, url: str, tmp_path: Path) -> None:
    assert remote_url(host, {}, tmp_path) == url


@pytest.mark.parametrize("host", NO_HOSTS)
def test_what_is_no_host_is_refused(host: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^cannot ask: .*: give HOST, HOST:PORT or"):
        remote_url(host, {}, tmp_path)


def test_nobody_there() -> None:
    port = free_port()
    found = run("status", f"127.0.0.1:{port}")
    assert found.exit_code == 1
    assert "Connection refused: is the runner up" in found.output


def test_one_that_asks_for_a_token_is_closed() -> None:
    with server(b'{"error": "token"}', 401) as port:
        found = run("status", f"127.0.0.1:{port}", f"127.0.0.1:{port}")
        assert found.output.count("closed") == 4
        assert "it asks for a token: set GLM47_STATUS_TOKEN" in found.output
        other = run("status", f"127.0.0.1:{port}", GLM47_STATUS_TOKEN="another")
        assert "it asks for another GLM47_STATUS_TOKEN than this one has" in other.output


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0.4, "0s"), (59.9, "59s"), (60, "1m00s"), (250, "4m10s"), (3600, "1h00m"), (7500, "2h05m"),
     (360000, "100h00m")],
)  # fmt: skip
def test_durations_as_people_read_them(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_a_table_of_nobody() -> None:
    assert table([], []).split() == ["HOST", "PROCESS", "STATE", "READY", "AGE", "RESTARTS", "DOING"]
