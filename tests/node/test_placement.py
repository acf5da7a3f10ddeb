from __future__ import annotations

import socket
from typing import Any

import pytest

from entrypoint.node.placement import Placement, from_environ
from entrypoint.settings.schema import Settings


def place(environ: dict[str, str] | None = None, role: str = "decode", **settings: Any) -> Placement:
    return from_environ(environ or {}, Settings(role=role, **settings), lambda peer, interface: "10.0.0.7")


LWS = {"LWS_GROUP_SIZE": "4", "LWS_WORKER_INDEX": "2", "LWS_LEADER_ADDRESS": "w-0.w"}


def test_auto_on_a_plain_machine_is_single() -> None:
    assert place(role="auto") == place(role="single") == Placement()


def test_roles_come_in_canonical_order() -> None:
    assert place(role="frontend, etcd,prefill,nats").roles == ("etcd", "nats", "prefill", "frontend")


def test_leaderworkerset_gives_the_rank() -> None:
    found = place(LWS)
    assert (found.kind, found.nnodes, found.node_rank, found.leader_address) == ("lws", 4, 2, "w-0.w")
    assert found.group == ("w-0.w", "w-0-1.w", "w-0-2.w", "w-0-3.w")
    assert found.name("nnodes") == "LWS_GROUP_SIZE"
    assert found.name("node_rank") == "LWS_WORKER_INDEX"


SET = "glm47-0-1a2b3c4d-decode"
"""What a DisaggregatedSet calls the LeaderWorkerSet of its role: set, slice, revision, role."""
HASHED = f"{SET}-9f2ac71b.{SET}.default"
POD_OF_HASHED = f"{SET}-5d9f-x2kkp"


def about_the_group(found: Placement) -> list[str]:
    """Others are about this machine's network."""
    return [warning for warning in found.warnings if "POD_NAME" in warning]


@pytest.mark.parametrize(
    ("leader", "rank", "pod", "follower"),
    [
        ("w-0.w", 0, None, "w-0-1.w"),
        ("w-0.w", 0, "something-else", "w-0-1.w"),
        ("w-12345678.w", 0, "w-12345678", "w-12345678-1.w"),
        ("w-3.w-3.ns", 1, None, "w-3-1.w-3.ns"),
        (f"{SET}-11.{SET}.default", 0, None, f"{SET}-11-1.{SET}.default"),
        (HASHED, 0, POD_OF_HASHED, f"{POD_OF_HASHED}-1.{SET}.default"),
        (HASHED, 1, f"{POD_OF_HASHED}-1", f"{POD_OF_HASHED}-1.{SET}.default"),
    ],
)
def test_a_group_is_found_by_the_names_that_its_controller_gives(
    leader: str, rank: int, pod: str | None, follower: str
) -> None:
    given = {"LWS_GROUP_SIZE": "2", "LWS_WORKER_INDEX": str(rank), "LWS_LEADER_ADDRESS": leader}
    found = place({**given, **({"POD_NAME": pod} if pod else {})})
    assert found.group == (leader, follower)
    assert not about_the_group(found)


def test_a_follower_knows_its_leader_by_any_name() -> None:
    given = {"LWS_GROUP_SIZE": "2", "LWS_WORKER_INDEX": "1", "LWS_LEADER_ADDRESS": HASHED}
    found = place(given)
    assert found.group[0] == HASHED and not about_the_group(found)


@pytest.mark.parametrize("leader", [HASHED, "10.1.2.3", "fd00::7"])
def test_a_leader_that_cannot_know_its_followers_says_so(leader: str) -> None:
    found = place({"LWS_GROUP_SIZE": "2", "LWS_WORKER_INDEX": "0", "LWS_LEADER_ADDRESS": leader})
    assert found.group == ()
    (warning,) = about_the_group(found)
    assert leader in warning


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
    found = from_environ({}, Settings(role="decode", head_address="127.0.0.1")).node_address
    if found is not None:
        socket.inet_aton(found)
        assert not found.startswith("127.")


def test_an_ipv6_address_is_found_where_there_is_no_other() -> None:
    found = from_environ({}, Settings(role="decode", head_address="2001:db8::1")).node_address
    assert found is None or socket.inet_pton(socket.AF_INET6 if ":" in found else socket.AF_INET, found)
    assert found not in ("::1", "127.0.0.1")


def test_a_leader_never_announces_its_own_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Debian a machine's own name leads to 127.0.1.1; what other nodes call it stays as it is."""
    hosts = {"node2": "127.0.1.1", "node2.cluster": "10.0.0.2", "127.0.0.1": "127.0.0.1"}
    monkeypatch.setattr(socket, "gethostname", lambda: "node2")
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **k: [(2, 1, 6, "", (hosts[host], 0))])

    def leader(name: str, rank: int) -> str | None:
        return place(role="prefill", prefill_nodes=2, leader_address=name, node_rank=rank).leader_address

    assert leader("node2", 0) == "10.0.0.7"
    assert leader("node2", 1) == "node2"
    assert leader("node2.cluster", 0) == "node2.cluster"
    assert leader("127.0.0.1", 0) == "127.0.0.1"


def test_interface_names_are_checked() -> None:
    assert from_environ({}, Settings(role="decode", interface="lo")).node_address == "127.0.0.1"
    (problem,) = from_environ({}, Settings(role="decode", interface="nosuch0")).problems
    assert problem.startswith(
        "cannot use GLM47_INTERFACE: nosuch0: it has no address here that others can reach:"
    )
