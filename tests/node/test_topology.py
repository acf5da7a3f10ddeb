"""Who is where on a list of nodes, and what is refused by name."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.commands.cli import cli
from entrypoint.commands.topology.show import Listeners, as_text
from entrypoint.errors import ConfigError
from entrypoint.node import nodelist
from entrypoint.node.job_ports import BLOCKS, job_ports
from entrypoint.node.nvlink import guessed_domains
from entrypoint.node.topology import Topology, lay_out

SIX = nodelist.expand("nvl72d[001-006]")
FOUR_TWO: dict[str, Any] = {"prefill_workers": 1, "prefill_nodes": 4, "decode_workers": 1, "decode_nodes": 2}


GIVEN: dict[str, Any] = {"nvlink_domain_size": 18, "nvlink_size_given": True}


def places(topology: Topology) -> list[tuple[str, str, int, int, str]]:
    return [(n.name, n.role, n.worker, n.rank, n.leader) for n in topology.nodes]


def test_the_original_layout() -> None:
    found = lay_out(SIX, **FOUR_TWO, frontends=2, nginx=True)
    assert places(found) == [
        ("nvl72d001", "prefill", 0, 0, "nvl72d001"),
        ("nvl72d002", "prefill", 0, 1, "nvl72d001"),
        ("nvl72d003", "prefill", 0, 2, "nvl72d001"),
        ("nvl72d004", "prefill", 0, 3, "nvl72d001"),
        ("nvl72d005", "decode", 0, 0, "nvl72d005"),
        ("nvl72d006", "decode", 0, 1, "nvl72d005"),
    ]
    assert found.head.servers == ("etcd", "nats", "frontend", "nginx")
    assert found.frontends == ("nvl72d001", "nvl72d004")
    assert found.node("nvl72d004").servers == ("frontend",)
    assert [n.rank for n in found.worker_of(found.node("nvl72d003"))] == [0, 1, 2, 3]


def test_without_prefill_workers_they_are_aggregated_and_as_many_as_fit() -> None:
    found = lay_out(SIX, decode_nodes=2)
    assert {n.role for n in found.nodes} == {"aggregated"}
    assert (found.decode_workers, found.disaggregated) == (3, False)
    assert lay_out(SIX, prefill_workers=2, decode_nodes=2).decode_workers == 2


@given(
    prefill=st.tuples(st.integers(0, 4), st.integers(1, 5)),
    decode=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    size=st.integers(1, 8),
    data=st.data(),
)
def test_every_node_holds_one_rank_and_no_worker_straddles(
    prefill: tuple[int, int], decode: tuple[int, int], size: int, data: st.DataObject
) -> None:
    total = prefill[0] * prefill[1] + decode[0] * decode[1]
    first = data.draw(st.integers(1, 20))
    names = [f"n{number}" for number in range(first, first + total)]
    found = lay_out(
        names,
        prefill_workers=prefill[0],
        prefill_nodes=prefill[1],
        decode_workers=decode[0],
        decode_nodes=decode[1],
        nvlink_domain_size=size,
    )
    assert [n.name for n in found.nodes] == names
    workers: dict[tuple[str, int], list[Any]] = {}
    for node in found.nodes:
        workers.setdefault((node.role, node.worker), []).append(node)
    assert len(workers) == prefill[0] + decode[0]
    for members in workers.values():
        assert sorted(n.rank for n in members) == list(range(members[0].nnodes))
        # The first that lies across is named; a guess does not keep the job from starting.
        assert len({n.domain for n in members}) == 1 or found.warnings
        assert {n.leader for n in members} == {n.name for n in members if n.rank == 0}


def test_workers_are_packed_into_domains_when_their_order_would_straddle() -> None:
    """5 x 4 + 8 x 2 nodes on two domains of 18: the fifth prefill worker moves to the second domain."""
    found = lay_out(
        nodelist.expand("nvl72d[001-036]"),
        prefill_workers=5,
        prefill_nodes=4,
        decode_workers=8,
        decode_nodes=2,
    )
    fifth = [n.name for n in found.nodes if (n.role, n.worker) == ("prefill", 4)]
    assert fifth == ["nvl72d019", "nvl72d020", "nvl72d021", "nvl72d022"]
    assert found.node("nvl72d017").role == "decode"


@pytest.mark.parametrize(
    ("text", "domains"),
    [
        ("n[001-036]", [18, 18]),
        ("n[0-17]", [18]),
        ("n[1-18]", [18]),
        ("nvl72d012-T[15-18],nvl72d013-T[01-02]", [4, 2]),
        ("n[17-20].cluster2.example", [2, 2]),
        ("alpha,beta,gamma", [3]),
    ],
)
def test_domains_from_names(text: str, domains: list[int]) -> None:
    found = guessed_domains(nodelist.expand(text), 18)
    assert [found.count(domain) for domain in dict.fromkeys(found)] == domains


@pytest.mark.parametrize(
    ("nodes", "given", "reason"),
    [
        ("", {}, "the node list is empty"),
        ("n1,n2,n1", {}, "n1 is in the node list twice"),
        (
            "n[1-5]",
            FOUR_TWO,
            "too few nodes, 5: GLM47_PREFILL_WORKERS 1 x GLM47_PREFILL_NODES 4 + "
            "GLM47_DECODE_WORKERS 1 x GLM47_DECODE_NODES 2 need 6: ask Slurm for --nodes=6",
        ),
        ("n[1-9]", FOUR_TWO, "too many nodes, 9: "),
        ("n[1-9]", FOUR_TWO, "n7, n8, n9 would stay idle"),
        ("n[1-9]", {"decode_nodes": 4}, "ask Slurm for --nodes=8 or --nodes=12"),
        ("n[1-2]", {"frontends": 3}, "cannot place GLM47_FRONTENDS: 3"),
        (
            "n[017-020]",
            {"decode_nodes": 4, "nvlink_domains": "n[001-018] n[019-036]"},
            "n018 ends one and n019 begins another: GLM47_NVLINK_DOMAINS",
        ),
        ("n[1-20]", {"decode_nodes": 20, **GIVEN}, "lower GLM47_DECODE_NODES"),
        ("n[1-20]", {"prefill_workers": 1, "prefill_nodes": 19, **GIVEN}, "lower GLM47_PREFILL_NODES"),
        ("n[1-3]", {"nvlink_domains": "n[1-2]"}, ": n3 of the job is in none of its domains: add it"),
        ("n[1-3]", {"nvlink_domains": "n[1-2] n[2-3]"}, "GLM47_NVLINK_DOMAINS: n2 is in it twice"),
        ("n[1-3]", {"nvlink_domains": "n[1-"}, "cannot read GLM47_NVLINK_DOMAINS: n[1-: ']' is missing"),
    ],
)
def test_refusals(nodes: str, given: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError) as error:
        lay_out(nodelist.expand(nodes), **given)
    assert reason in str(error.value)
    assert str(error.value).startswith("cannot ")


@pytest.mark.parametrize(
    "text",
    [
        "n[017-020]",
        "ip-10-0-1-5,ip-10-0-1-77,ip-10-0-2-5,ip-10-0-3-250",
        "node[0017-0018],node[0119-0120]",
        "gpu-a100-[16-19]",
        "a1,b2,c3,d4",
        "fd00--5,fd00--90,fd00--91,fd00--200",
    ],
)
def test_a_guess_from_names_only_warns(text: str) -> None:
    found = lay_out(nodelist.expand(text), decode_nodes=4)
    (warning,) = found.warnings
    assert "as far as the numbers in their names tell" in warning and "GLM47_NVLINK_DOMAINS" in warning
    assert [n.rank for n in found.nodes] == [0, 1, 2, 3]
    names = " ".join(f"{name}" for name in nodelist.expand(text))
    one = ",".join(names.split())
    assert not lay_out(nodelist.expand(text), decode_nodes=4, nvlink_domains=one).warnings
    with pytest.raises(ConfigError):
        lay_out(nodelist.expand(text), decode_nodes=4, nvlink_domains=names)
    assert not lay_out(nodelist.expand(text), decode_nodes=4, nvlink_domain_size=0).warnings
    assert not lay_out(nodelist.expand(text), decode_nodes=1).warnings


def test_known_domains_are_packed_into() -> None:
    found = lay_out(
        ("b1", "a1", "b2", "a2"),
        prefill_workers=1,
        prefill_nodes=2,
        decode_nodes=2,
        nvlink_domains="a[1-2] b[1-2]",
    )
    assert {tuple(n.name for n in found.worker_of(node)) for node in found.nodes} == {
        ("b1", "b2"),
        ("a1", "a2"),
    }
    assert {n.domain for n in found.nodes} == {"a1", "b1"}


def test_domains_need_not_matter() -> None:
    assert (
        lay_out(nodelist.expand("n[017-020]"), decode_nodes=4, nvlink_domain_size=0).nodes[0].domain is None
    )


def test_job_ports_are_distinct_low_and_the_same_on_every_node() -> None:
    for job in (0, 1, 699, 700, 123456):
        ports = job_ports(job)
        assert len(set(ports.values())) == len(ports)
        # 32768 is where ephemeral ports begin, and where Dynamo's system port must end.
        assert all(10000 <= port < 32768 - 16 for port in ports.values())
    spans = [set(range(min(p.values()), min(p.values()) + 32)) for p in map(job_ports, range(BLOCKS))]
    assert len(set().union(*spans)) == 32 * BLOCKS


def test_ten_thousand_nodes_in_under_a_second() -> None:
    began = time.process_time()
    names = nodelist.expand("nvl72d[00001-10000]")
    found = lay_out(names, prefill_workers=1000, prefill_nodes=4, decode_workers=3000, decode_nodes=2)
    servers = ("health", "frontend", "etcd", "etcd peer", "nats", "nats monitor", "engine")
    listeners = Listeners("http://n:1", dict.fromkeys(servers, 1), 1, {"prefill": 1, "decode": 1})
    table = as_text(found, listeners)
    assert time.process_time() - began < 1
    assert table.count("\n") == 10006


def topology(*words: str, **env: str) -> Any:
    return CliRunner().invoke(cli, ["topology", *words], env=env, catch_exceptions=False)


def test_command_prints_the_table() -> None:
    found = topology(
        "--nodelist", "nvl72d[001-006]", "--prefill-workers=2", "--prefill-nodes=2", "--decode-nodes=2"
    )
    assert found.exit_code == 0
    lines = found.output.splitlines()
    assert lines[0] == "6 nodes: 2 prefill workers (2 nodes, 8 GPUs each), 1 decode worker (2 nodes, 8 GPUs)"
    row = next(line for line in lines if line.startswith("nvl72d001 "))
    assert row.split()[1:6] == ["prefill", "0", "0/2", "nvl72d001:29500", "etcd,nats,frontend"]
    assert "frontend:8000" in row
    assert "etcd:2379" in row


def test_command_says_where_tls_is_spoken() -> None:
    words = ("--nodes=2", "--format=json")
    plain, tls = (
        json.loads(topology(*words, **{f"GLM47_{name}_TLS_DIR": value for name in ("ETCD", "NATS")}).output)
        for value in ("", "/tls")
    )
    assert (plain["etcd"], plain["nats"]) == ("http://node1:2379", "nats://node1:4222")
    assert (tls["etcd"], tls["nats"]) == ("https://node1:2379", "tls://node1:4222")


def test_command_takes_settings_and_a_jobs_ports() -> None:
    words = ("--nodes=4", "--job-id=7", "--format=json")
    found = topology(*words, GLM47_PREFILL_WORKERS="2", GLM47_HTTP_PORT="8123")
    data = json.loads(found.output)
    assert data["url"] == "http://node1:8123"
    assert data["etcd"] == f"http://node1:{job_ports(7)['etcd_port']}"
    assert [n["role"] for n in data["nodes"]] == ["prefill", "prefill", "decode", "decode"]
    assert data["nodes"][2]["ports"] == {
        "health": job_ports(7)["health_port"],
        "engine": job_ports(7)["system_port"],
    }


def test_command_refuses_with_78() -> None:
    found = topology("--nodelist", "n[1-")
    assert found.exit_code == 78
    assert "cannot read --nodelist: n[1-: ']' is missing" in found.output
    assert topology("--nodelist=n[1-5]", "--decode-nodes=2").exit_code == 78
