"""Whom a real nats-server lets in, asked as Dynamo asks; its configuration is the planner's."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from entrypoint.plan.types import NatsProbe
from entrypoint.supervise.probes import asking
from entrypoint.supervise.probes.nats import lacks
from tests.plan.deployments import HEAD, Container, build
from tests.support.nats import Server, server

PASSWORDS = (
    "hunter2", "12345", "true", "1k", "$HOME", '"', "\\", "\\x41", "a b", "#no", "//no", "{}", "é日本",
    "\t\n", "'", "x" * 500,
)  # fmt: skip
"""What nats-server's configuration would take for something else, if it were not quoted."""


@contextmanager
def asks(directory: Path, **given: str) -> Iterator[Server]:
    (file,) = build(Container({**HEAD, **given, "role": "nats"})).secret_files
    with server(directory, file.content) as found:
        yield found


@pytest.mark.parametrize("password", PASSWORDS, ids=range(len(PASSWORDS)))
def test_any_password(tmp_path: Path, password: str) -> None:
    """As a user's, as a token, and as the user's name."""
    ways: dict[str, dict[str, Any]] = {"user": {"user": password, "password": password}}
    ways["token"] = {"token": password}
    for kind, shown in ways.items():
        given = {f"nats_{'username' if name == 'user' else name}": value for name, value in shown.items()}
        with asks(tmp_path / kind, **given) as found:
            probe = NatsProbe("127.0.0.1", found.port)
            assert lacks(replace(probe, **shown), 5.0) == ""
            others: list[dict[str, Any]] = [{}, {name: f"{value}x" for name, value in shown.items()}]
            for other in others:
                why = lacks(replace(probe, **other), 5.0)
                assert "does not let" in why and "Authorization Violation" in why
            assert lacks(replace(probe, knocks=False), 5.0) == ""


def test_nobody_is_asked(tmp_path: Path) -> None:
    with server(tmp_path / "nats", "") as found:
        probe = NatsProbe("127.0.0.1", found.port)
        ways: list[dict[str, Any]] = [{}, {"user": "al", "password": "hunter2"}, {"token": "hunter2"}]
        for shown in ways:
            assert lacks(replace(probe, **shown), 5.0) == ""
        why = lacks(replace(probe, tls=True, tls_dir="/tls"), 5.0)
        assert "speaks no TLS" in why


SAID = [
    (b'INFO {"jetstream": true}\r\n', "the connection was closed"),
    (b"INFO {\"jetstream\": true}\r\n-ERR 'Authorization Violation'\r\n", "Authorization Violation"),
    (b'INFO {"jetstream": true}\r\n' + b"INFO {}\r\n" * 9 + b"PONG\r\n", ""),
    (b'INFO {"jetstream": true, "tls_required": true}\r\n', "speaks TLS only"),
    (b'INFO {"jetstream": false, "version": "2.9"}\r\n', "NATS 2.9 at 127.0.0.1"),
    (b"SSH-2.0-OpenSSH\r\n", "does not greet as NATS does"),
    (b"INFO nonsense\r\n", "that is not JSON"),
    (b"INFO []\r\n", "that is not an object"),
    (b"x" * 100_000, "does not greet as NATS does"),
    (b"", "the connection was closed"),
]


@pytest.mark.parametrize(("said", "why"), SAID, ids=range(len(SAID)))
def test_what_others_say(said: bytes, why: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def speak() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(said)
                if said.startswith(b"INFO {"):
                    connection.recv(4096)

        speaker = threading.Thread(target=speak)
        speaker.start()
        probe = NatsProbe("127.0.0.1", listener.getsockname()[1])
        try:
            ready, found, _ = asking.ask(probe, lambda *_: httpx.Client())
        except asking.SilentError as error:
            ready, found = False, str(error)
        speaker.join()
    assert ready is (why == "") and why in found
