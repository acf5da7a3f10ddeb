"""A port that a stranger holds ends the start with 78, and his answers are nobody's readiness."""

from __future__ import annotations

import http.server
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from entrypoint.plan.endpoint import Endpoint
from entrypoint.plan.probe_types import HttpProbe
from entrypoint.supervise import ports
from tests.support.plans import plan, process, server
from tests.support.runner import Runner, free_port, until

HOSTS = ("127.0.0.1", "0.0.0.0", "::", "[::1]")
BIND = (
    "import socket, sys, time\n"
    "s = socket.create_server((sys.argv[1], int(sys.argv[2])))\n"
    "print('bound', flush=True); time.sleep(1000)"
)


def endpoint(port: int, host: str = "127.0.0.1", process: str = "web") -> Endpoint:
    return Endpoint("web", port, host, process, "GLM47_WEB_PORT")


@contextmanager
def answering(port: int) -> Iterator[None]:
    """This process answers any GET there."""

    class Ok(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Ok) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield
        made.shutdown()


@contextmanager
def bound(port: int, host: str = "127.0.0.1") -> Iterator[int]:
    """A child of this process listens there."""
    command = [sys.executable, "-c", BIND, host, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"bound\n"
        yield child.pid
        child.kill()


def test_what_we_or_ours_listen_on_is_ours() -> None:
    port = free_port()
    assert ports.taken_from([endpoint(port)]) is None
    with socket.create_server(("127.0.0.1", port)):
        assert ports.taken_from([endpoint(port)]) is None
        assert f"(pid {os.getpid()})" in str(ports.holder(endpoint(port)))
    with bound(port) as pid:
        assert ports.taken_from([endpoint(port)]) is None
        assert f"(pid {pid})" in str(ports.holder(endpoint(port)))


@pytest.mark.parametrize("theirs", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("host", HOSTS)
def test_a_taken_port_is_found_with_its_holder(host: str, theirs: str) -> None:
    if ":" in host and not socket.has_ipv6:
        pytest.skip("no IPv6")
    port = free_port()
    with bound(port, theirs) as pid:
        found = [*ports.problems([endpoint(port, host), endpoint(free_port(), host)])]
    if host == "[::1]":
        assert found == []
    else:
        assert len(found) == 1
        assert f"{port} for web" in found[0] and f"(pid {pid})" in found[0] and "GLM47_WEB_PORT" in found[0]


def test_a_start_with_a_taken_port_starts_nothing(tmp_path: Path) -> None:
    port = free_port()
    p = plan(process("web"), server("etcd"), ports=(endpoint(port), endpoint(free_port(), process="etcd")))
    with answering(port), Runner.of_plan(p, tmp_path) as runner:
        assert runner.wait(30) == 78
    assert f"127.0.0.1:{port} for web" in runner.lines[-1] and f"(pid {os.getpid()})" in runner.lines[-1]
    assert "GLM47_WEB_PORT" in runner.lines[-1]
    assert not any("started" in line for line in runner.lines)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_that_is_not_ours_is_for_check_and_for_its_process_to_say(host: str) -> None:
    there = [endpoint(free_port(), host)]
    assert len([*ports.problems(there)]) == 1
    ports.must_be_free(there)


def test_what_ends_just_now_is_waited_for(tmp_path: Path) -> None:
    port = free_port()
    p = plan(process("web"), ports=(endpoint(port),))
    with answering(port):
        runner = Runner.of_plan(p, tmp_path)
        until(lambda: (tmp_path / "run" / "runner.lock").exists(), "it is on its way")
    with runner:
        runner.wait_for("web is ready")


@pytest.mark.parametrize("critical", [True, False])
def test_a_stranger_who_comes_later_makes_nobody_ready(critical: bool, tmp_path: Path) -> None:
    """As the second of two jobs on one node, whose engines load for 20 minutes."""
    port = free_port()
    probe = HttpProbe(f"http://127.0.0.1:{port}/")
    kind_of = process if critical else server
    p = plan(kind_of("web", argv=("sleep", "1000"), ready=probe), ports=(endpoint(port),))
    with Runner.of_plan(p, tmp_path) as runner:
        runner.wait_for("web started")
        with answering(port):
            assert runner.wait(30) == 78
    assert f"(pid {os.getpid()}) does" in runner.lines[-1] and "GLM47_WEB_PORT" in runner.lines[-1]
    assert not any("is ready" in line for line in runner.lines)


@pytest.mark.parametrize("critical", [True, False])
def test_who_cannot_bind_for_a_stranger_says_so(critical: bool, tmp_path: Path) -> None:
    port, go = free_port(), tmp_path / "go"
    script = f"while [ ! -e {go} ]; do sleep 0.02; done; exec {sys.executable} -c '{BIND}' 127.0.0.1 {port}"
    kind_of = process if critical else server
    p = plan(kind_of("web", argv=("sh", "-c", script)), ports=(endpoint(port),))
    with Runner.of_plan(p, tmp_path) as runner:
        runner.wait_for("web started")
        with answering(port):
            go.touch()
            assert runner.wait(30) == 78
    assert f"(pid {os.getpid()}) does" in runner.lines[-1]
