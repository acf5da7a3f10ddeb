"""What a company's network puts between a build and its packages: a proxy, a private index, a CA of its own.

The index is reached by a name that only the proxy knows, over TLS that only the CA's certificate vouches for,
and answers whoever gives user and password: a build that gets its packages has used all three.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.server
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

HOST = "packages.company.test"
USER, PASSWORD = "builder", "swordfish-4711"


@dataclass
class Company:
    """Where the network is, and what went through it."""

    proxy: str
    certificate: Path
    pip_conf: Path
    tunnels: list[str] = field(default_factory=list)
    """Targets that the proxy was asked for."""
    served: list[str] = field(default_factory=list)
    """Paths that the index gave away."""


@contextlib.contextmanager
def company(directory: Path, packages: Path) -> Iterator[Company]:
    """The network, with an index of the wheels in `packages`; its own files are made in `directory`."""
    certificate, key, conf = (directory / name for name in ("company.pem", "company.key", "pip.conf"))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key,
         "-out", certificate, "-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"],
        capture_output=True, check=True,
    )  # fmt: skip
    conf.write_text(f"[global]\nindex-url = https://{USER}:{PASSWORD}@{HOST}/simple\n")
    simple = directory / "index" / "simple"
    for wheel in packages.glob("*.whl"):
        project = simple / wheel.name.split("-")[0].replace("_", "-").replace(".", "-").lower()
        project.mkdir(parents=True, exist_ok=True)
        (project / wheel.name).symlink_to(wheel)
    made = Company("", certificate, conf)
    with _index(made, simple.parent, key) as port, _proxy(made, port) as made.proxy:
        yield made


@contextlib.contextmanager
def _index(made: Company, directory: Path, key: Path) -> Iterator[int]:
    expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers["Authorization"] != expected:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="packages"')
                self.end_headers()
                return
            made.served.append(self.path)
            super().do_GET()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the paths are kept."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, key)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=directory)) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@contextlib.contextmanager
def _proxy(made: Company, index_port: int) -> Iterator[str]:
    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(1 << 16):
                target.write(data)
                await target.drain()
        target.close()

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        verb, target, _ = (await reader.readuntil(b"\r\n\r\n")).decode().split(" ", 2)
        made.tunnels.append(target)
        if (verb, target) != ("CONNECT", f"{HOST}:443"):
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", index_port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(copy(reader, up_writer), copy(up_reader, writer))

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(tunnel, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    server.close()
