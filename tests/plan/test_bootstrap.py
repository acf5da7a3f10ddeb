"""Decode workers and a prefill worker's own ranks find its bootstrap server, on every release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from entrypoint.errors import ConfigError
from entrypoint.node.facts import Facts
from entrypoint.plan.types import PrefillProbe
from tests.plan.deployments import HEAD, IMAGE, MODEL, Container, build
from tests.plan.releases import HOSTS, PAIRS, serve

PREFILL: Mapping[str, Any] = {"role": "prefill", **HEAD}
NODES: Mapping[str, Any] = {**PREFILL, "prefill_nodes": 2, "leader_address": "node2", "tp": 8}
ALL: Mapping[str, Any] = {"role": "etcd,nats,prefill,decode,frontend", "prefill_workers": 1, "tp": 2}
WIDE = {"0.0.0.0": ".", "::": ":"}
"""What listens on every address of a family, and the mark of that family."""

REACHED: dict[str, Container] = {
    "own container": Container(PREFILL),
    "an interface": Container({**PREFILL, "interface": "eth7"}, address="172.20.0.3"),
    "everything in one container": Container(ALL),
    "no outside address": Container(ALL, address=None),
    "SGLang's own variable": Container(PREFILL, native={"SGLANG_HOST_IP": "192.168.7.7"}),
    "its other variable": Container(PREFILL, native={"HOST_IP": "192.168.7.7"}),
    "both variables": Container(PREFILL, native={"SGLANG_HOST_IP": "192.168.7.7", "HOST_IP": "10.9.9.9"}),
    "the leader of two nodes": Container(NODES),
    "a follower": Container({**NODES, "node_rank": 1}),
    "a leader by address": Container({**NODES, "leader_address": "10.0.0.7"}),
    "a leader of one's own": Container({**NODES, "extra_args": "--dist-init-addr 10.0.0.9:4000"}),
    "a person's own address": Container({**PREFILL, "prefill_extra_args": "--host 10.1.1.1"}),
    "a person's every address": Container({**PREFILL, "extra_args": "--host=0.0.0.0"}),
    "a person's loopback in one container": Container({**ALL, "extra_args": "--host 127.0.0.1"}),
    "a person's every address on two nodes": Container({**NODES, "extra_args": "--host 0.0.0.0"}),
}
IPV6: dict[str, Container] = {
    "own container": Container(PREFILL, address="fd00::7"),
    "SGLang's own variable, in brackets": Container(PREFILL, native={"SGLANG_HOST_IP": "[fd00::7]"}),
    "the leader of two nodes": Container({**NODES, "leader_address": "fd00::2"}, address="fd00::2"),
    "a follower": Container({**NODES, "leader_address": "fd00::2", "node_rank": 1}, address="fd00::3"),
    "a person's own address": Container({**PREFILL, "extra_args": "--host fd00::9"}, address="fd00::7"),
}


def on(container: Container, sglang: str) -> Container:
    """The same container with a release installed."""
    engine = replace(IMAGE, sglang=sglang, dynamo=PAIRS[sglang], flashinfer=None)
    return replace(container, facts=Facts(MODEL, engine))


def finds(asked: str, listens: str) -> bool:
    """Whether a question to `asked` arrives at a server that is bound to `listens`."""
    return asked.strip("[]") == listens or WIDE.get(listens, "nothing") in asked


@pytest.mark.parametrize("sglang", PAIRS)
@pytest.mark.parametrize("name", REACHED)
def test_it_is_found(name: str, sglang: str) -> None:
    container = on(REACHED[name], sglang)
    check_found(container, sglang)


@pytest.mark.parametrize("sglang", [version for version in PAIRS if version not in ("0.5.6.post2", "0.5.9")])
@pytest.mark.parametrize("name", IPV6)
def test_it_is_found_over_ipv6(name: str, sglang: str) -> None:
    container = on(IPV6[name], sglang)
    check_found(container, sglang)


def check_found(container: Container, sglang: str) -> None:
    plan = build(container)
    process = plan.process("prefill")
    served = serve(process, sglang, container.native)
    if plan.rank:
        leader = build(replace(container, settings={**container.settings, "node_rank": 0}))
        listens = serve(leader.process("prefill"), sglang, container.native).listens
    else:
        listens = served.listens
        assert finds(served.announced, listens)
        assert isinstance(process.ready, PrefillProbe)
        asked = process.ready.bootstrap.removeprefix("http://").removesuffix(":30001")
        assert HOSTS.get(asked, asked) == served.announced, "it is asked where decode workers are told to ask"
        (port,) = (port for port in plan.ports if port.name == "bootstrap")
        assert port.host == listens, "`check` tries that very address"
    assert finds(served.registers, listens)


def test_left_to_itself_the_pinned_release_is_not_found() -> None:
    """The control: what this file finds out without the plan's arguments."""
    plan = build(on(Container(PREFILL), "0.5.6.post2"))
    process = plan.process("prefill")
    at = process.argv.index("--host")
    served = serve(replace(process, argv=process.argv[:at] + process.argv[at + 2 :]), "0.5.6.post2", {})
    assert not finds(served.announced, served.listens)


REFUSED: dict[str, tuple[Container, str]] = {
    "a loopback that others are not told": (
        Container({**PREFILL, "extra_args": "--host 127.0.0.1"}),
        "cannot use GLM47_EXTRA_ARGS --host: 127.0.0.1: its bootstrap server is announced at 10.0.0.7 "
        "(GLM47_INTERFACE): give 10.0.0.7, or leave it out",
    ),
    "another address than the variable says": (
        Container({**PREFILL, "extra_args": "--host 10.1.1.1"}, native={"SGLANG_HOST_IP": "10.0.0.7"}),
        "cannot use GLM47_EXTRA_ARGS --host: 10.1.1.1: its bootstrap server is announced at 10.0.0.7 "
        "(SGLANG_HOST_IP): give 10.0.0.7, or leave it out",
    ),
    "one address for the ranks of two nodes": (
        Container({**NODES, "prefill_extra_args": "--host 10.0.0.7"}),
        "cannot use GLM47_PREFILL_EXTRA_ARGS --host: 10.0.0.7: its bootstrap server is announced at node2 "
        "(GLM47_LEADER_ADDRESS): give 0.0.0.0, or leave it out",
    ),
    "every address of the other family": (
        Container({**PREFILL, "extra_args": "--host ::"}),
        "cannot use GLM47_EXTRA_ARGS --host: ::: its bootstrap server is announced at 10.0.0.7 "
        "(GLM47_INTERFACE): give 0.0.0.0, or leave it out",
    ),
    "a name": (
        Container({**PREFILL, "extra_args": "--host node2"}),
        "cannot use GLM47_EXTRA_ARGS --host: node2: the bootstrap server needs an IP address there: "
        "give 10.0.0.7, or leave it out",
    ),
    "no address at all": (
        Container({**PREFILL, "extra_args": "--host"}),
        "cannot use GLM47_EXTRA_ARGS --host: no value: the bootstrap server needs an IP address there: "
        "give 10.0.0.7, or leave it out",
    ),
    "IPv6 before SGLang knew it": (
        on(Container(PREFILL, address="fd00::7"), "0.5.9"),
        "cannot use GLM47_INTERFACE: fd00::7: prefill workers of sglang 0.5.9 cannot be reached over IPv6 "
        "(0.5.10 can): name an interface or address of IPv4",
    ),
    "IPv6 before Dynamo knew it": (
        on(Container({**PREFILL, "role": "decode"}, native={"HOST_IP": "fd00::7"}), "0.5.6.post2"),
        "cannot use HOST_IP: fd00::7: decode workers of Dynamo 0.8.1 cannot be reached over IPv6 "
        "(0.9.0 can): name an interface or address of IPv4",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_not_be_found_is_refused(name: str) -> None:
    container, line = REFUSED[name]
    with pytest.raises(ConfigError) as raised:
        build(container)
    assert line in raised.value.problems


def test_a_decode_worker_has_no_bootstrap_server_to_bind() -> None:
    plan = build(Container({"role": "decode", **HEAD, "extra_args": "--host 127.0.0.1"}))
    assert not any(port.name == "bootstrap" for port in plan.ports)


@pytest.mark.parametrize("name", ["HOST_IP", "SGLANG_HOST_IP"])
@pytest.mark.parametrize("role", ["prefill", "decode"])
@pytest.mark.parametrize("value", ["http://h:2379", "10.0.0.7:30001", "a b", "10.0.0.7,10.0.0.8", "::x", "/"])
def test_an_address_that_is_none_is_refused(role: str, name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"^cannot use {name}: {value}: give the address of this container"):
        build(Container({"role": role, **HEAD}, native={name: value}))
