"""Taking a worker off the list that frontends choose from: before it stops, and when it has died.

A worker's entries are told by the address in them. While it lives, it listens on that port; once it is dead,
nobody does. Leases and model cards of a living worker stay: without them it shuts down on its own.
"""

from __future__ import annotations

import contextlib
import errno
import re
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

from entrypoint.base.foreign import from_json
from entrypoint.plan.types import Withdrawal
from entrypoint.supervise.discovery.registry import TIMEOUT, Entry, RegistryError, open_registry

OFF = "is off the list"
"""What a line about the dead begins with."""
_ADDRESS = re.compile(r"(?:^|//)(\[[^\]]+\]|[^/:]+):(\d+)(?:/|$)")


def withdraw(withdrawal: Withdrawal, pid: int, environ: Mapping[str, str]) -> str:
    """Delete the instances that process `pid` serves; a line that says what came of it.

    Never raises: a worker that cannot be withdrawn stops as it would have without. `environ` may hold
    Dynamo's ETCD_AUTH_* variables.
    """
    where = f"the list in {withdrawal.where}"
    try:
        with open_registry(withdrawal, environ) as registry:
            own = served_by(pid, registry.instances())
            for entry in own:
                registry.remove(entry)
    except (RegistryError, OSError) as error:
        return f"could not be taken off {where}: {error}: it just stops"
    return f"is off {where}: nothing new comes in" if own else f"is not on {where}"


def served_by(pid: int, instances: Iterable[Entry]) -> list[Entry]:
    """Those of `instances` that process `pid` serves. OSError when it cannot be looked at."""
    ports = listening_ports(pid)
    return [entry for entry in instances if ports & {port for _, port in local_addresses(entry.value)}]


def bury(withdrawal: Withdrawal, environ: Mapping[str, str]) -> str | None:
    """Delete all that dead workers of this machine have left in the list; a line, None: there was nothing.

    Dead is an instance at an address of this machine where connections are refused. Never raises: what stays
    expires after 10 s.
    """
    try:
        with open_registry(withdrawal, environ) as registry:
            dead = [entry for entry in registry.instances() if _is_dead(entry)]
            for entry in dead:
                registry.bury(entry)
    except (RegistryError, OSError) as error:
        return f"may stay on the list in {withdrawal.where} for 10 s: {error}"
    return f"{OFF} in {withdrawal.where}" if dead else None


def _is_dead(entry: Entry) -> bool:
    addresses = local_addresses(entry.value)
    return bool(addresses) and all(_refused(host.strip("[]"), port) for host, port in addresses)


def _refused(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=TIMEOUT).close()
    except OSError as error:
        return error.errno == errno.ECONNREFUSED
    return False


def listening_ports(pid: int) -> set[int]:
    """TCP ports that process `pid` listens on. OSError when it cannot be looked at."""
    inodes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(fd.readlink())
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
    """(host, port) of an instance's transport, where that host is this machine; half-written: none."""
    try:
        instance = from_json(value)
    except ValueError:
        return []
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
