"""nginx.conf for the frontends: real nginx reads it, and passes streams on as they come."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from entrypoint.plan.roles.nginx import HEALTH, render
from tests.slurm.cluster import wait_for

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def test_every_frontend_is_an_upstream_and_all_files_are_in_the_run_directory() -> None:
    text = render(["n1:8001", "[fd00::2]:8001"], "::", 8000, "/run/glm47/nginx", 12.5)
    assert "server n1:8001 " in text
    assert "server [fd00::2]:8001 " in text
    assert "listen [::]:8000 ipv6only=off;" in text
    assert "worker_shutdown_timeout 12s;" in text
    paths = re.findall(r"(?<=\s)/\S+", text)
    assert {path.rstrip(";") for path in paths if not path.startswith(("/nginx-health",))} - {"/"} <= {
        f"/run/glm47/nginx/{name}"
        for name in ("nginx.pid", "client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    }


class Upstream(BaseHTTPRequestHandler):
    """Sends one part at once, and the other when it is told to."""

    protocol_version = "HTTP/1.1"
    go_on = threading.Event()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"5\r\nfirst\r\n")
        self.wfile.flush()
        self.go_on.wait(20)
        self.wfile.write(b"6\r\nsecond\r\n0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def upstream() -> Iterator[int]:
    Upstream.go_on.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    Upstream.go_on.set()
    server.shutdown()
    server.server_close()


@pytest.mark.slurm
@pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: nginx-light)")
def test_streams_are_passed_on_at_once_and_finished_on_quit(tmp_path: Path, upstream: int) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        dead = socket.socket()
        dead.bind(("127.0.0.1", 0))
    config = tmp_path / "nginx.conf"
    upstreams = [f"127.0.0.1:{dead.getsockname()[1]}", f"127.0.0.1:{upstream}"]
    config.write_text(render(upstreams, "127.0.0.1", port, str(tmp_path), 20))
    url = f"http://127.0.0.1:{port}"
    with (tmp_path / "out").open("w") as out:
        process = subprocess.Popen(
            [str(NGINX), "-p", str(tmp_path), "-c", str(config)], stdout=out, stderr=out
        )
    try:

        def healthy() -> bool:
            try:
                return httpx.get(url + HEALTH, trust_env=False).status_code == 200
            except httpx.HTTPError:
                return False

        wait_for(healthy, 10, "nginx answers")
        with (
            httpx.Client(trust_env=False, timeout=15) as client,
            client.stream("POST", url + "/v1/completions", content=b"{}") as answer,
        ):
            # One frontend is dead: the request goes to the other.
            assert answer.status_code == 200
            parts = answer.iter_raw()
            assert b"first" in next(parts)
            process.send_signal(3)
            wait_for(lambda: not healthy(), 10, "no new connections")
            Upstream.go_on.set()
            assert b"second" in b"".join(parts)
        assert process.wait(10) == 0
    finally:
        dead.close()
        if process.poll() is None:
            process.kill()
            process.wait()
