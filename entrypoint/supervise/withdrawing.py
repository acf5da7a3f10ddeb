"""Taking a worker off the list in etcd before it stops, so that frontends send it nothing new."""

from __future__ import annotations

import base64
import json
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entrypoint.plan import Withdrawal

if TYPE_CHECKING:
    import httpx

TIMEOUT = 3.0
"""Seconds that etcd gets for each answer: a stop must not hang on it."""
_ADDRESS = re.compile(r"(?:^|//)(\[[^\]]+\]|[^/:]+):(\d+)(?:/|$)")


def withdraw(withdrawal: Withdrawal, pid: int, environ: Mapping[str, str]) -> str:
    """Delete the keys of the instances that process `pid` serves; a line that says what came of it.

    Never raises: a worker that cannot be withdrawn stops as it would have without. `environ` may hold
    Dynamo's ETCD_AUTH_* variables.
    """
    import httpx

    try:
        ports = listening_ports(pid)
        with _client(withdrawal, environ) as client:
            listed = _range(client, withdrawal.prefix)
            own = [key for key, value in listed if ports & {port for _, port in local_addresses(value)}]
            for key in own:
                client.post("/v3/kv/deleterange", json={"key": _encode(key)}).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, KeyError) as error:
        return f"could not be taken off etcd's list: {withdrawal.etcd}: {error}: it just stops"
    return "is off etcd's list: nothing new comes in" if own else "is not on etcd's list"


def listening_ports(pid: int) -> set[int]:
    """TCP ports that process `pid` listens on. OSError when it cannot be looked at."""
    inodes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(fd.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    ports = set()
    for table in ("tcp", "tcp6"):
        path = Path(f"/proc/{pid}/net/{table}")
        if not path.exists():
            continue
        for line in path.read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def local_addresses(value: str) -> list[tuple[str, int]]:
    """(host, port) of an instance's transport, where that host is this machine."""
    instance = json.loads(value)
    transport = instance.get("transport") if isinstance(instance, dict) else None
    texts = transport.values() if isinstance(transport, dict) else [transport]
    found = [m for text in texts if isinstance(text, str) for m in _ADDRESS.findall(text)]
    return [(host, int(port)) for host, port in found if _is_local(host.strip("[]"))]


def _is_local(host: str) -> bool:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except OSError:
        return False
    return True


def _client(withdrawal: Withdrawal, environ: Mapping[str, str]) -> httpx.Client:
    import ssl

    import httpx

    verify: Any = True
    if withdrawal.etcd.startswith("https"):
        verify = ssl.create_default_context(cafile=withdrawal.ca_file)
        if certificate := environ.get("ETCD_AUTH_CLIENT_CERT"):
            verify.load_cert_chain(certificate, environ.get("ETCD_AUTH_CLIENT_KEY"))
    client = httpx.Client(base_url=withdrawal.etcd, verify=verify, trust_env=False, timeout=TIMEOUT)
    user, password = environ.get("ETCD_AUTH_USERNAME"), environ.get("ETCD_AUTH_PASSWORD")
    if user and password:
        answer = client.post("/v3/auth/authenticate", json={"name": user, "password": password})
        client.headers["Authorization"] = answer.raise_for_status().json()["token"]
    return client


def _range(client: httpx.Client, prefix: str) -> list[tuple[str, str]]:
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    answer = client.post("/v3/kv/range", json={"key": _encode(prefix), "range_end": _encode(end)})
    pairs = answer.raise_for_status().json().get("kvs", [])
    return [(_decode(pair["key"]), _decode(pair["value"])) for pair in pairs]


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _decode(text: str) -> str:
    return base64.b64decode(text).decode()
