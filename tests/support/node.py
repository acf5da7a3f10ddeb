"""A second machine: a network namespace with an address of its own, and a cable to this one.

Its loopback and its shared memory are not ours: what listens on 127.0.0.1 there is out of reach here. Takes
root, iproute2 and util-linux.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

OWN_SHM = 'mount -t tmpfs shm /dev/shm && exec "$0" "$@"'
"""Ranks that share /dev/shm take each other for processes of one machine, and talk over its loopback."""


@dataclass(frozen=True)
class Node:
    """The other machine, and both ends of the cable."""

    name: str
    address: str
    interface: str
    here: str
    """This machine's address on the cable."""
    interface_here: str

    def command(self, *words: str) -> list[str]:
        """`words` as a command line that runs there, once `OWN_SHM` has made it another machine."""
        apart = ("unshare", "--mount", "--ipc", "sh", "-c", OWN_SHM)
        return ["ip", "netns", "exec", self.name, *apart, *words]


@contextmanager
def second_node() -> Iterator[Node]:
    """The node, until it is left. Skips the test where that takes more rights than there are."""
    if os.getuid() != 0 or shutil.which("ip") is None:
        pytest.skip("a network namespace takes root and iproute2")
    number = _free_number()
    name = f"glm47-{os.getpid()}"
    node = Node(name, f"10.147.{number}.2", f"n{os.getpid()}", f"10.147.{number}.1", f"h{os.getpid()}")

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    ip("netns", "add", name)
    try:
        ip("link", "add", node.interface_here, "type", "veth", "peer", "name", node.interface, "netns", name)
        ip("address", "add", f"{node.here}/30", "dev", node.interface_here)
        ip("link", "set", node.interface_here, "up")
        for words in (
            ("address", "add", f"{node.address}/30", "dev", node.interface),
            ("link", "set", node.interface, "up"),
            ("link", "set", "lo", "up"),
            # Dynamo 0.8.1 has a frontend answered at its machine's first address, not the one it is told.
            ("route", "add", "default", "via", node.here),
        ):
            ip("-n", name, *words)
        yield node
    finally:
        # By itself the cable goes, and its name, at some time after the last process of the namespace.
        subprocess.run(["ip", "link", "delete", node.interface_here], check=False)
        ip("netns", "delete", name)


def _free_number() -> int:
    """Of a network that no other test's node has."""
    addresses = subprocess.run(["ip", "-4", "-o", "address"], capture_output=True, text=True, check=True)
    own = os.getpid() % 250
    numbers = (2 + (own + more) % 250 for more in range(250))
    return next(n for n in numbers if f" 10.147.{n}.1/" not in addresses.stdout)
