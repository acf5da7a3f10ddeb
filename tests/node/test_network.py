"""What the system says about its own network, asked of the loopback that every machine has."""

from __future__ import annotations

import pytest

from entrypoint.node.network import Network, is_loopback, leads_home, own_address, own_name_misleads

NOBODY = "198.51.100.7"
"""Reserved for documentation: nobody's own."""


class Fixed(Network):
    """A network with a name and addresses of its own."""

    def __init__(self, name: str, found: dict[str, tuple[str, ...]], own: tuple[str, ...] = ()) -> None:
        self._name, self._found, self._own = name, found, own

    def name(self) -> str:
        return self._name

    def addresses(self, host: str) -> tuple[str, ...]:
        return self._found.get(host, ())

    def is_own(self, address: str) -> bool:
        return address in self._own


def test_the_loopback() -> None:
    network = Network()
    assert network.address("lo") == "127.0.0.1" and network.interface("127.0.0.1") == "lo"
    assert network.subnet("127.0.0.1") == "127.0.0.0/8"
    assert network.is_own("127.0.0.1") and not network.is_own(NOBODY)
    assert network.source("127.0.0.1") is None, "a loopback is nobody's address"
    assert network.addresses("127.0.0.1") == ("127.0.0.1",)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "", "a" * 300, "a" * 64 + ".b", "a..b", "host\0"])
def test_a_name_that_leads_nowhere_is_no_error(host: str) -> None:
    network = Network()
    if host:
        assert network.addresses(host) == ()
    assert network.source(host or "no-such-host.invalid") is None


@pytest.mark.parametrize("interface", ["", "no-such-interface", "x" * 100])
def test_an_interface_that_is_not_there_has_no_address(interface: str) -> None:
    assert Network().address(interface) is None


@pytest.mark.parametrize("address", [NOBODY, "2001:db8::7"])
def test_an_address_of_nobody_here_has_no_interface(address: str) -> None:
    network = Network()
    assert network.interface(address) is None and network.subnet(address) is None


@pytest.mark.parametrize(
    ("host", "home"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("[::1]", True), ("localhost", True),
     ("10.0.0.1", False), ("::", False), ("head", False), ("1270.0.0.1", False)],
)  # fmt: skip
def test_what_is_a_loopback_by_itself(host: str, home: bool) -> None:
    assert is_loopback(host) is home


@pytest.mark.parametrize(
    ("addresses", "home"),
    [((), False), (("127.0.1.1",), True), (("127.0.1.1", "10.0.0.1"), False), (("10.0.0.1",), False),
     (("::1", "127.0.0.1"), True)],
)  # fmt: skip
def test_a_name_leads_home_when_all_its_addresses_do(addresses: tuple[str, ...], home: bool) -> None:
    assert leads_home(Fixed("me", {"head": addresses}), "head") is home


@pytest.mark.parametrize(
    ("addresses", "own", "misleads"),
    [
        (("127.0.1.1",), ("127.0.1.1",), True),
        (("127.0.1.1", "10.0.0.1"), ("127.0.1.1", "10.0.0.1"), True),
        (("10.0.0.1", "127.0.1.1"), ("10.0.0.1", "127.0.1.1"), False),
        (("10.9.9.9", "10.0.0.1"), ("10.0.0.1",), False),
        (("10.9.9.9",), ("10.0.0.1",), True),
        ((), ("10.0.0.1",), True),
    ],
)
def test_the_own_name_as_gloo_reads_it(
    addresses: tuple[str, ...], own: tuple[str, ...], misleads: bool
) -> None:
    assert own_name_misleads(Fixed("me", {"me": addresses}, own)) is misleads


def test_the_own_address_is_the_interface_s_where_one_is_named() -> None:
    assert own_address(Network(), None, "lo") == "127.0.0.1"
    assert own_address(Network(), None, "no-such-interface") is None
