from __future__ import annotations

import socket
from typing import Any

from entrypoint.placement import Placement, from_environ
from entrypoint.settings import Settings


def place(environ: dict[str, str] | None = None, role: str = "decode", **settings: Any) -> Placement:
    return from_environ(environ or {}, Settings(ROLE=role, **settings), lambda peer, interface: "10.0.0.7")


LWS = {"LWS_GROUP_SIZE": "4", "LWS_WORKER_INDEX": "2", "LWS_LEADER_ADDRESS": "w-0.w"}


def test_auto_on_a_plain_machine_is_single() -> None:
    assert place(role="auto") == place(role="single") == Placement()


def test_roles_come_in_canonical_order() -> None:
    assert place(role="frontend, etcd,prefill,nats").roles == ("etcd", "nats", "prefill", "frontend")


def test_leaderworkerset_gives_the_rank() -> None:
    found = place(LWS)
    assert (found.kind, found.nnodes, found.node_rank, found.leader_address) == ("lws", 4, 2, "w-0.w")
    assert found.name("nnodes") == "LWS_GROUP_SIZE"
    assert found.name("node_rank") == "LWS_WORKER_INDEX"


def test_settings_win_over_leaderworkerset() -> None:
    found = place(LWS, nnodes=2, node_rank=0, leader_address="node1")
    assert (found.nnodes, found.node_rank, found.leader_address) == (2, 0, "node1")
    assert found.name("nnodes") == "GLM47_NNODES"


def test_topology_gives_the_nodes_of_the_role() -> None:
    assert place(prefill_nodes=4, decode_nodes=2).nnodes == 2
    assert place(role="prefill", prefill_nodes=4, decode_nodes=2).nnodes == 4
    assert place(role="frontend", prefill_nodes=4).nnodes == 1
    assert place(decode_nodes=2).name("nnodes") == "GLM47_DECODE_NODES"


def test_bad_numbers_are_problems() -> None:
    assert place({"LWS_GROUP_SIZE": "0", "LWS_WORKER_INDEX": "-1"}).problems == (
        "cannot use LWS_GROUP_SIZE: 0: give a whole number of at least 1",
        "cannot use LWS_WORKER_INDEX: -1: give a whole number of at least 0",
    )


def test_own_address_is_the_route_to_the_head_and_never_the_loopback() -> None:
    found = from_environ({}, Settings(ROLE="decode", head_address="127.0.0.1")).node_address
    if found is not None:
        socket.inet_aton(found)
        assert not found.startswith("127.")


def test_interface_names_are_checked() -> None:
    assert from_environ({}, Settings(ROLE="decode", interface="lo")).node_address == "127.0.0.1"
    (problem,) = from_environ({}, Settings(ROLE="decode", interface="nosuch0")).problems
    assert problem.startswith("cannot use GLM47_INTERFACE: nosuch0: it has no IPv4 address here;")
