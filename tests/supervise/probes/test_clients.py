"""Servers asked over TLS by a runner that has left OpenSSL out of its start."""

from __future__ import annotations

import http.server
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.runner import ROOT
from tests.support.tls import make_certificate

START = """
import sys
from entrypoint.run.supervised import stay_small
stay_small()
from entrypoint.supervise.probes.clients import Clients
clients, url, ca_file = Clients(), sys.argv[1], sys.argv[2]
"""
LOADED = "print([name for name in ('_ssl', '_hashlib') if name in sys.modules])"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls") / "both.pem")


@pytest.fixture(scope="module", params=["http", "https"])
def server(request: pytest.FixtureRequest, certificate: Path) -> Iterator[str]:
    """A server's URL."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        if request.param == "https":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"{request.param}://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def python(code: str, *words: object) -> str:
    """What a new interpreter prints: this one has OpenSSL already."""
    command = [sys.executable, "-c", START + code, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_server_answers_and_openssl_is_loaded_for_tls_only(server: str) -> None:
    loaded = "['_ssl']" if server.startswith("https") else "[]"
    code = f"print(clients.get(None).get(url).text, clients.get(None).get(url).text); {LOADED}"
    assert python(code, server, "-") == f"ok ok\n{loaded}\n"


def test_who_is_trusted_by_a_file_answers(server: str, certificate: Path) -> None:
    assert python("print(clients.get(ca_file).get(url).text)", server, certificate) == "ok\n"


def test_who_is_not_is_refused(server: str) -> None:
    code = """
import certifi, httpx
try:
    print(clients.get(certifi.where()).get(url).text)
except httpx.ConnectError as error:
    print(error)
"""
    expected = "CERTIFICATE_VERIFY_FAILED" if server.startswith("https") else "ok"
    assert expected in python(code, server, "-")


def test_a_file_that_is_missing_is_an_error_of_ours(tmp_path: Path) -> None:
    code = """
try:
    clients.get(ca_file)
except OSError as error:
    print(type(error).__name__)
"""
    assert python(code, "-", tmp_path / "missing") == "FileNotFoundError\n"


def test_hashes_and_tls_are_there_for_whoever_wants_them() -> None:
    assert python("""
import hashlib, hmac, ssl
from hashlib import sha3_256
assert hashlib.md5(b"x").hexdigest() == "9dd4e461268c8034f5c8564e155c67a6"
assert hmac.new(b"k", b"x", "sha256").digest() and sha3_256(b"").digest()
context = ssl.create_default_context()
print(type(context) is ssl.SSLContext, isinstance(context, ssl.SSLContext), ssl.SSLSocket.__module__)
""", "-", "-") == "True True ssl\n"  # fmt: skip
