"""What a node says of itself: names on its loopback, GPUs that it was given, proxies, IPv6 alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from entrypoint.errors import ConfigError
from entrypoint.node import network
from entrypoint.node.facts import Facts
from entrypoint.node.inspect import gpus_given
from entrypoint.node.network import Network
from tests.plan.deployments import HEAD, NEWER, PINNED, Container, Hosts, build

TWO: Mapping[str, Any] = {**HEAD, "role": "decode", "nnodes": 2, "leader_address": "node6", "tp": 8}
FOLLOWER: Mapping[str, Any] = {**TWO, "node_rank": 1}
SLURM = {
    "SLURM_JOB_ID": "1234",
    "SLURM_JOB_NODELIST": "node[6-7]",
    "SLURMD_NODENAME": "node7",
    "SLURM_NODEID": "1",
}


def env_of(container: Container) -> Mapping[str, str]:
    return next(p.env for p in build(container).processes if p.log_dialect == "sglang")


@pytest.mark.parametrize(
    ("own", "misleads"),
    [
        ("127.0.1.1", True),  # Debian
        ("127.0.0.1", True),
        ("127.255.255.254", True),
        ("::1", True),
        ("", True),  # no such name: Gloo falls back to the loopback
        ("192.0.2.9", True),  # another machine's address, as a stale name server says
        ("192.0.2.9 127.0.1.1", True),
        ("127.0.1.1 10.0.0.7", True),  # the first that can be bound is taken
        ("10.0.0.7", False),
        ("10.0.0.7 127.0.1.1", False),
        ("192.0.2.9 10.0.0.7", False),
        ("fd00::7", False),
    ],
)
@pytest.mark.parametrize(
    "settings", [TWO, FOLLOWER, {**TWO, "role": "prefill"}], ids=["leader", "follower", "prefill"]
)
def test_gloo_gets_the_interface_of_the_chosen_address_where_the_own_name_misleads(
    settings: Mapping[str, Any], own: str, misleads: bool
) -> None:
    hosts = Hosts(own, node6="10.0.0.6")
    assert network.own_name_misleads(hosts) is misleads
    container = Container(settings, network=hosts)
    assert env_of(container).get("GLOO_SOCKET_IFNAME") == ("eth7" if misleads else None)
    assert "NCCL_SOCKET_IFNAME" not in env_of(container)
    # What a person said comes first.
    assert (
        env_of(replace(container, settings={**settings, "interface": "eth3"}))["GLOO_SOCKET_IFNAME"] == "eth3"
    )
    native = replace(container, native={"GLOO_SOCKET_IFNAME": "eth3"})
    assert "GLOO_SOCKET_IFNAME" not in env_of(native)


def test_ranks_of_one_node_need_no_interface() -> None:
    assert "GLOO_SOCKET_IFNAME" not in env_of(
        Container({**HEAD, "role": "decode"}, network=Hosts("127.0.1.1"))
    )


def test_a_slurm_node_whose_name_misleads_gets_the_interface_too() -> None:
    job = Container({"role": "auto", "decode_nodes": 2}, SLURM, network=Hosts("127.0.1.1", node6="10.0.0.6"))
    assert env_of(job)["GLOO_SOCKET_IFNAME"] == "eth7"


def test_an_address_that_no_interface_has_is_warned_of() -> None:
    plan = build(Container(TWO, address="10.9.9.9", network=Hosts("127.0.1.1")))
    (warning,) = [w for w in plan.warnings if "GLM47_INTERFACE" in w]
    assert "node7, leads to its loopback" in warning and "10.9.9.9" in warning


@pytest.mark.parametrize(
    ("leader", "leads"),
    [
        ("node6", "127.0.1.1"),
        ("node6", "127.0.0.1"),
        ("node6", "::1"),
        ("node6", "127.0.1.1 ::1"),
        ("localhost", "127.0.0.1"),
        ("127.0.0.1", ""),
        ("127.0.1.1", ""),
        ("::1", ""),
    ],
)
def test_a_follower_whose_leader_is_its_own_loopback_is_refused(leader: str, leads: str) -> None:
    hosts = Hosts(**{leader: leads})
    (line,) = build(Container({**FOLLOWER, "leader_address": leader}, network=hosts)).unmet
    assert line.startswith(
        f"cannot use GLM47_LEADER_ADDRESS: {leader}: it leads to this machine's own loopback"
    )
    assert "rank 1 is not the leader" in line and "\n" not in line
    environ = {"LWS_GROUP_SIZE": "2", "LWS_WORKER_INDEX": "1", "LWS_LEADER_ADDRESS": leader}
    (line,) = build(Container({**HEAD, "role": "decode"}, environ, network=hosts)).unmet
    assert line.startswith(f"cannot use LWS_LEADER_ADDRESS: {leader}: ")
    # On the leader itself such a name is an everyday thing.
    assert build(Container({**TWO, "leader_address": leader}, network=hosts)).unmet == ()


@pytest.mark.parametrize("leads", ["10.0.0.6", "127.0.1.1 10.0.0.6", ""])
def test_a_leader_elsewhere_is_not(leads: str) -> None:
    assert build(Container(FOLLOWER, network=Hosts(node6=leads))).unmet == ()


def test_a_slurm_follower_whose_leader_is_its_own_loopback_is_refused() -> None:
    job = Container({"role": "auto", "decode_nodes": 2}, SLURM, network=Hosts(node6="127.0.1.1"))
    (line,) = build(job).unmet
    assert line.startswith("cannot use SLURM_JOB_NODELIST: node6: it leads to this machine's own loopback")


@pytest.mark.parametrize(
    ("settings", "environ"),
    [
        ({"head_address": "127.0.0.1"}, {}),
        ({"head_address": "localhost"}, {}),
        ({}, {"SGLANG_HOST_IP": "127.0.0.2"}),
        ({}, {"ETCD_ENDPOINTS": "http://127.0.0.1:2379"}),
    ],
)
def test_ranks_on_one_machine_may_say_so(settings: dict[str, Any], environ: dict[str, str]) -> None:
    together = {**FOLLOWER, "leader_address": "127.0.0.1", **settings}
    assert build(Container(together, environ)).unmet == ()


@pytest.mark.parametrize(
    ("environ", "given"),
    [
        ({}, None),
        ({"CUDA_VISIBLE_DEVICES": ""}, None),
        ({"CUDA_VISIBLE_DEVICES": "0"}, 1),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, 2),
        ({"CUDA_VISIBLE_DEVICES": " 0, 1 ,2,3"}, 4),
        ({"CUDA_VISIBLE_DEVICES": "0,1,-1,2"}, 2),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, 0),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, 0),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8932f937,MIG-1b3c"}, 2),
        ({"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_GPUS_ON_NODE": "4"}, 2),
        ({"SLURM_GPUS_ON_NODE": "2"}, 2),
        ({"SLURM_GPUS_ON_NODE": "4"}, 4),
        ({"SLURM_GPUS_ON_NODE": "8"}, 8),
        ({"SLURM_GPUS_ON_NODE": "4(x2)"}, None),
    ],
)
@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ({**HEAD, "role": "decode"}, 4),
        ({**HEAD, "role": "decode", "tp": 2}, 2),
        ({**TWO}, 4),
        ({**HEAD, "role": "prefill,decode", "prefill_tp": 2, "decode_tp": 2}, 4),
        ({**HEAD, "role": "prefill,decode", "prefill_tp": 1, "decode_tp": 1}, 2),
    ],
)
def test_the_gpus_given_must_hold_what_is_planned(
    environ: dict[str, str], given: int | None, settings: Mapping[str, Any], needed: int
) -> None:
    found = gpus_given(environ)
    assert (found and found[1]) == given
    container = Container(settings, facts=replace(NEWER, gpus=found))
    if given is None or given >= needed:
        warned = [w for w in build(container).warnings if "stay idle" in w]
        assert bool(warned) == (given is not None and given > 4)
        return
    with pytest.raises(ConfigError) as error:
        build(container)
    (line,) = error.value.problems
    assert line.startswith(
        f"cannot use GLM47_GPUS_PER_NODE: 4: the ranks of this node take {needed} GPUs, and "
    )
    assert f"{found[0] if found else ''} gives {given or 'none'}" in line


def test_frontends_and_mockers_take_no_gpus() -> None:
    none = replace(PINNED, gpus=("CUDA_VISIBLE_DEVICES", 0))
    build(Container({**HEAD, "role": "frontend"}, facts=none))
    build(Container({**HEAD, "role": "decode", "engine": "mocker"}, facts=none))


def proxied(no_proxy: str = "") -> Facts:
    return replace(NEWER, proxied=True, no_proxy=no_proxy)


@pytest.mark.parametrize(
    "settings",
    [
        {**HEAD, "role": "prefill"},
        {**HEAD, "role": "decode"},
        {**HEAD, "role": "frontend", "prefill_workers": 1},
        {**TWO},
        {"role": "single"},
    ],
    ids=lambda settings: settings["role"],
)
@pytest.mark.parametrize("given", ["", "corp.example", "corp.example, .svc ,10.0.0.0/24"])
def test_no_proxy_is_for_the_deployment_itself(settings: Mapping[str, Any], given: str) -> None:
    plan = build(Container(settings, facts=proxied(given)))
    for process in plan.processes:
        if "dynamo" not in " ".join(process.argv):
            continue
        words = process.env["NO_PROXY"].split(",")
        assert process.env["no_proxy"] == process.env["NO_PROXY"]
        assert words[: len(kept := [w.strip() for w in given.split(",") if w])] == kept
        wanted = {"localhost", "127.0.0.1", "::1"}
        if settings["role"] != "single":
            wanted |= {HEAD["head_address"], "10.0.0.7", "10.0.0.0/24"}
        if settings.get("nnodes"):
            wanted.add("node6")
        assert wanted <= set(words) and len(words) == len(set(words))


def test_without_a_proxy_or_with_none_for_anything_nothing_is_added() -> None:
    for facts in (NEWER, replace(NEWER, no_proxy="corp.example"), proxied("*"), proxied("a,*")):
        assert "NO_PROXY" not in env_of(Container({**HEAD, "role": "decode"}, facts=facts))


def test_a_slurm_job_names_its_nodes_and_their_addresses() -> None:
    hosts = Hosts(node6="10.1.0.6", node7="10.0.0.7")
    job = Container({"role": "auto", "prefill_workers": 1}, SLURM, facts=proxied(), network=hosts)
    words = env_of(job)["NO_PROXY"].split(",")
    assert {"node6", "node7", "10.1.0.6", "10.0.0.7", "10.0.0.0/24"} <= set(words)


def test_ipv6_alone() -> None:
    v6 = {"head_address": "fd00::1", "prefill_workers": 1}
    worker = build(Container({**v6, "role": "decode"}, address="fd00::7", facts=NEWER))
    env = worker.processes[0].env
    assert env["DYN_SYSTEM_HOST"] == "::" and env["SGLANG_HOST_IP"] == "fd00::7"
    assert env["DYN_TCP_RPC_HOST"] == "[fd00::7]", "run: 0.8.1 takes no other"
    assert (worker.health.host, {p.host for p in worker.ports}) == ("::", {"::"})
    head = build(Container({**v6, "role": "etcd,nats,frontend"}, address="fd00::1", facts=NEWER))
    argv = {p.name: " ".join(p.argv) for p in head.processes}
    assert "--listen-client-urls=http://[::]:2379" in argv["etcd"]
    assert "--addr :: --port" in argv["nats"]
    # Dynamo's frontend puts the port behind it: without brackets that is no address.
    assert "--http-host [::] --http-port 8000" in argv["frontend"]
    given = {**v6, "role": "frontend", "http_host": "fd00::1", "health_host": "127.0.0.1"}
    own = build(Container(given, address="fd00::1", facts=NEWER))
    assert own.health.host == "127.0.0.1" and "--http-host [fd00::1]" in " ".join(own.processes[-1].argv)
    alone = build(Container({"role": "single"}, address="fd00::1", facts=NEWER))
    assert alone.health.host == "::" and "--http-host [::]" in " ".join(alone.processes[-1].argv)
    assert build(Container({"role": "single"}, facts=NEWER)).health.host == "0.0.0.0"


def test_this_machine_is_looked_at() -> None:
    here = Network()
    assert here.addresses("127.0.0.1") == ("127.0.0.1",) and here.addresses("no-such-name.invalid") == ()
    assert here.is_own("127.0.0.1") and not here.is_own("192.0.2.1")
    assert (here.interface("127.0.0.1"), here.subnet("127.0.0.1")) == ("lo", "127.0.0.0/8")
    assert here.address("lo") == "127.0.0.1" and here.address("nosuch0") is None
    assert here.interface("192.0.2.1") is None and here.subnet("192.0.2.1") is None
    assert network.leads_home(here, "localhost") and not network.leads_home(here, "192.0.2.1")
