"""Which of the members a machine is: by its name, else by its addresses."""

from __future__ import annotations

import pytest

from entrypoint.node.etcd_member import own
from entrypoint.settings.members import members
from tests.node.test_network import Fixed

POD: dict[str, tuple[str, ...]] = {"glm47-etcd-1": ("10.1.0.2",), "glm47-etcd-1.glm47-pods": ("10.1.0.2",)}
COMPOSE: dict[str, tuple[str, ...]] = {
    "etcd-a": ("172.18.0.2",),
    "etcd-b": ("172.18.0.3",),
    "etcd-c": ("172.18.0.4",),
}
CASES: dict[str, tuple[str, dict[str, tuple[str, ...]], tuple[str, ...], str, str | None]] = {
    "a pod, by the first word of its name": (
        "glm47-etcd-1", POD, (), "glm47-etcd-0.glm47-pods,glm47-etcd-1.glm47-pods,glm47-etcd-2.glm47-pods",
        "glm47-etcd-1.glm47-pods",
    ),
    "a node with its whole name": ("b.example", {}, (), "a.example,b.example,c.example", "b.example"),
    "two of that first word, one the whole name": (
        "b.site2", {}, (), "b.site1,b.site2,c", "b.site2",
    ),
    "two of that first word, told by addresses": (
        "b", {"b.site1": ("10.0.0.1",), "b.site2": ("10.0.1.1",)}, ("10.0.1.1",), "b.site1,b.site2,c",
        "b.site2",
    ),
    "capital letters": ("NODE2", {}, (), "node1,node2,node3", "node2"),
    "a Compose service, by where its name leads": (
        "0f3a9c21d7be", COMPOSE, ("172.18.0.3",), "etcd-a,etcd-b,etcd-c", "etcd-b",
    ),
    "an address": ("n", {"10.0.0.2": ("10.0.0.2",)}, ("10.0.0.2",), "x=10.0.0.1,y=10.0.0.2,z=10.0.0.3", "y"),
    "Debian's loopback for the own name": ("b", {"b": ("127.0.1.1",)}, ("127.0.1.1",), "a,b,c", "b"),
    "not in it": ("d", COMPOSE, (), "a,b,c", None),
    "loopbacks are everybody's": (
        "d", {"127.0.0.1": ("127.0.0.1",)}, ("127.0.0.1", "127.0.0.2"), "127.0.0.1,127.0.0.2,127.0.0.3", None,
    ),
    "two of its own addresses": (
        "d", {"a": ("10.0.0.1",), "b": ("10.0.0.2",)}, ("10.0.0.1", "10.0.0.2"), "a,b,c", None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_which_one_it_is(case: str) -> None:
    name, found, addresses, listed, wanted = CASES[case]
    assert own(members(listed), Fixed(name, found, addresses)) == wanted
