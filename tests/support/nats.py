"""A NATS server without a runner; who is connected to one; NATS' own keys (Ed25519)."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.runner import free_port, until
from tests.support.stack import ENGINE

FIRST = {"operator": 14 << 3, "account": 0, "user": 20 << 3}
"""By kind of key, what its first letter (O, A, U) is made of."""
SEED = 18 << 3
ALL = {"subs": -1, "data": -1, "payload": -1}
STREAMS = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
ACCOUNT = {**ALL, "imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1}


@dataclass(frozen=True)
class Server:
    """Where it listens."""

    port: int
    monitor: int

    def clients(self) -> list[dict[str, Any]]:
        return clients(self.monitor)


def clients(monitor: int | str) -> list[dict[str, Any]]:
    """Who is connected to the server with this port for monitoring."""
    with urllib.request.urlopen(f"http://127.0.0.1:{monitor}/connz?auth=1", timeout=5) as answer:
        found: list[dict[str, Any]] = json.load(answer)["connections"]
    return found


@contextmanager
def server(directory: Path, configuration: str) -> Iterator[Server]:
    """nats-server with JetStream and `configuration` besides; it is killed at the end."""
    directory.mkdir()
    found = Server(free_port(), free_port())
    file = directory / "nats.conf"
    listens = f'host: "127.0.0.1"\nport: {found.port}\nhttp: "127.0.0.1:{found.monitor}"\n'
    file.write_text(f'{listens}jetstream {{ store_dir: "{directory}/data" }}\n{configuration}\n')
    with (directory / "log").open("w") as log:
        process = subprocess.Popen([str(ENGINE / "nats-server"), "--config", str(file)], stderr=log)
    try:
        until(lambda: process.poll() is not None or _listens(found.port), "NATS listens")
        assert process.poll() is None, (directory / "log").read_text()
        yield found
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


class Key:
    """A key of NATS' own."""

    def __init__(self, kind: str, directory: Path) -> None:
        self._file = directory / f"{kind}-{time.monotonic_ns()}.pem"
        _openssl("genpkey", "-algorithm", "ed25519", "-out", str(self._file))
        secret = _openssl("pkey", "-in", str(self._file), "-outform", "DER")[-32:]
        public = _openssl("pkey", "-in", str(self._file), "-pubout", "-outform", "DER")[-32:]
        first = FIRST[kind]
        self.seed = _text(bytes([SEED | first >> 5, (first & 31) << 3]) + secret)
        self.public = _text(bytes([first]) + public)

    def signed(self, subject: Key, name: str, claims: dict[str, Any]) -> str:
        """A token (JWT) in which it says `claims` of `subject`."""
        body: dict[str, Any] = {
            "iat": int(time.time()),
            "iss": self.public,
            "name": name,
            "sub": subject.public,
        }
        body["nats"] = {**claims, "version": 2}
        body["jti"] = hashlib.sha256(json.dumps(body).encode()).hexdigest()
        parts = [{"typ": "JWT", "alg": "ed25519-nkey"}, body]
        said = ".".join(_url(json.dumps(part).encode()) for part in parts)
        file = self._file.with_suffix(".said")
        file.write_text(said)
        sign = ("pkeyutl", "-sign", "-inkey", str(self._file), "-rawin", "-in", str(file))
        return f"{said}.{_url(_openssl(*sign))}"


def operator(directory: Path) -> tuple[Path, str]:
    """A user's credentials file, and the configuration of a server that believes the operator behind it."""
    of_all, account, system, user = (
        Key(kind, directory) for kind in ("operator", "account", "account", "user")
    )
    believed = of_all.signed(of_all, "operator", {"type": "operator"})
    accounts = {
        account.public: of_all.signed(
            account, "account", {"type": "account", "limits": {**ACCOUNT, **STREAMS}}
        ),
        system.public: of_all.signed(system, "system", {"type": "account", "limits": ACCOUNT}),
    }
    token = account.signed(user, "user", {"type": "user", **ALL})
    file = directory / "user.creds"
    file.write_text(
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
    )
    known = "\n".join(f'{public}: "{token}"' for public, token in accounts.items())
    return file, (
        f'operator: "{believed}"\nsystem_account: {system.public}\n'
        f"resolver: MEMORY\nresolver_preload {{\n{known}\n}}"
    )


def _openssl(*words: str) -> bytes:
    return subprocess.run(["openssl", *words], check=True, capture_output=True).stdout


def _text(raw: bytes) -> str:
    """As NATS writes keys: with a check sum (CRC-16), in base 32."""
    crc = 0
    for byte in raw:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ (0x1021 if crc & 0x8000 else 0)) & 0xFFFF
    return base64.b32encode(raw + crc.to_bytes(2, "little")).decode().rstrip("=")


def _url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
