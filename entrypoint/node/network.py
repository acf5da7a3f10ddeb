"""What this machine's network says: names, its own addresses, their interfaces. Nothing is sent.

The functions are pure but for a `Network`, which asks the system; tests give one of their own.
"""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from pathlib import Path

SIOCGIFADDR, SIOCGIFNETMASK = 0x8915, 0x891B


class Network:
    """The system's resolver, routes and interfaces."""

    def name(self) -> str:
        """This machine's own name."""
        return socket.gethostname()

    def addresses(self, host: str) -> tuple[str, ...]:
        """Where `host`, a name or an address, leads, in the resolver's order; empty: nowhere."""
        try:
            found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
        except (OSError, ValueError):  # ValueError: no host can have that name
            return ()
        return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))

    def is_own(self, address: str) -> bool:
        """Whether a socket can be bound to `address`."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.bind((address, 0))
        except OSError:
            return False
        return True

    def source(self, target: str) -> str | None:
        """The address from which a packet to `target` would leave; IPv4 first, and never a loopback."""
        try:
            found = socket.getaddrinfo(target.strip("[]"), 9, type=socket.SOCK_DGRAM)
        except (OSError, ValueError):
            return None
        for family, kind, protocol, _, address in sorted(found, key=lambda entry: entry[0]):
            try:
                # Connecting a datagram socket only looks up the route.
                with socket.socket(family, kind, protocol) as probe:
                    probe.connect(address)
                    source = str(probe.getsockname()[0])
            except OSError:
                continue
            if not is_loopback(source):
                return source
        return None

    def address(self, interface: str) -> str | None:
        """The first address of `interface` that is valid beyond its link, IPv4 first."""
        if (found := self._ioctl(interface, SIOCGIFADDR)) is not None:
            return found
        return next((address for name, address in _ipv6() if name == interface), None)

    def interface(self, address: str) -> str | None:
        """The interface that has `address`."""
        if ":" in address:
            return next((name for name, other in _ipv6() if other == address), None)
        names = [name for _, name in socket.if_nameindex()]
        return next((name for name in names if self._ioctl(name, SIOCGIFADDR) == address), None)

    def subnet(self, address: str) -> str | None:
        """The network of this machine's IPv4 `address`, as ``10.0.0.0/24``."""
        interface = None if ":" in address else self.interface(address)
        mask = None if interface is None else self._ioctl(interface, SIOCGIFNETMASK)
        return None if mask is None else str(ipaddress.ip_network(f"{address}/{mask}", strict=False))

    def _ioctl(self, interface: str, request: int) -> str | None:
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                answer = fcntl.ioctl(probe.fileno(), request, struct.pack("256s", interface.encode()[:15]))
        except OSError:
            return None
        return socket.inet_ntoa(answer[20:24])


def _ipv6() -> list[tuple[str, str]]:
    """(interface, address) of this machine's IPv6 addresses that are valid beyond their links."""
    try:
        rows = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        return []
    fields = [row.split() for row in rows]
    return [
        (name, socket.inet_ntop(socket.AF_INET6, bytes.fromhex(address)))
        for address, _, _, scope, _, name in fields
        if int(scope, 16) == 0
    ]


def is_loopback(host: str) -> bool:
    """Whether `host` leads nowhere but to the machine that reads it, judged by itself."""
    return host.startswith("127.") or host.strip("[]") in ("::1", "localhost")


def leads_home(network: Network, host: str) -> bool:
    """Whether `host`, a name or an address, leads to nothing but this machine's loopback."""
    found = network.addresses(host)
    return is_loopback(host) or (bool(found) and all(map(is_loopback, found)))


def own_name_misleads(network: Network) -> bool:
    """Whether others are told a loopback when a library looks its own machine's name up, as Gloo does.

    It takes the first address of that name that is the machine's own (Debian: 127.0.1.1), else the loopback.
    """
    own = next(filter(network.is_own, network.addresses(network.name())), None)
    return own is None or is_loopback(own)


def own_address(network: Network, peer: str | None, interface: str | None) -> str | None:
    """This node's address as `peer` sees it, else as anybody outside would. None: it has none."""
    if interface is not None:
        return network.address(interface)
    # The two literals are reserved for documentation, and stand for "anywhere outside".
    targets = [target for target in (peer, "192.0.2.1", "2001:db8::1") if target is not None]
    return next(filter(None, map(network.source, targets)), None)
