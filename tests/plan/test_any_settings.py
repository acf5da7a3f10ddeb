"""Whatever the settings are: a plan that holds together, or a ConfigError whose lines a person can act on."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from entrypoint.errors import ConfigError
from tests.plan.deployments import LAPTOP, NEWER, PINNED, Container, build

WORDS = ("etcd", "nats", "frontend", "prefill", "decode", "aggregated")
ROLES = st.one_of(
    st.sampled_from(["single", "auto"]),
    st.sets(st.sampled_from(WORDS), min_size=1).map(lambda words: ",".join(sorted(words))),
)
PORTS = st.sampled_from([2379, 4222, 8000, 8081, 9480, 32767, 32768, 40000])
SMALL = st.integers(1, 8)
OPTIONAL: dict[str, st.SearchStrategy[Any]] = {
    "engine": st.sampled_from(["sglang", "mocker"]),
    "tp": st.integers(1, 40),
    "prefill_tp": SMALL,
    "decode_tp": SMALL,
    "dp": SMALL,
    "ep": SMALL,
    "gpus_per_node": SMALL,
    "nnodes": SMALL,
    "node_rank": st.integers(0, 8),
    "leader_address": st.sampled_from(["node2", "10.0.0.2", "fd00::2"]),
    "head_address": st.sampled_from(["node1", "10.0.0.1", "fd00::1"]),
    "prefill_workers": st.integers(0, 3),
    "prefill_workers_per_node": st.integers(1, 9),
    "decode_workers_per_node": st.integers(1, 9),
    "decode_workers": st.integers(0, 3),
    "prefill_nodes": SMALL,
    "decode_nodes": SMALL,
    "discovery": st.sampled_from(["auto", "etcd", "file"]),
    "router_mode": st.sampled_from(["round-robin", "kv"]),
    "moe_runner": st.sampled_from(["auto", "flashinfer_trtllm", "triton"]),
    "modelopt_patch": st.sampled_from(["pad", "assert", "off"]),
    "mnnvl": st.sampled_from(["auto", "on", "off"]),
    "stop_timeout": st.floats(0.5, 600),
    "http_port": PORTS,
    "health_port": PORTS,
    "system_port": PORTS,
    "served_model_name": st.sampled_from(["glm-4.7", "a/b/c", "/a", "a//b", "a:b", ".."]),
    "extra_args": st.sampled_from(["--tp 2", "--nnodes=2 --node-rank x", "--dist-init-addr h:1", "x"]),
    "frontend_extra_args": st.sampled_from(["--http-port 9480", "--http-port x", "--kv-events", "y"]),
}
NATIVE: dict[str, st.SearchStrategy[str]] = {
    "ETCD_ENDPOINTS": st.sampled_from(["http://e:1", "e:1,f:2", "http://:x", ""]),
    "NATS_SERVER": st.sampled_from(["nats://u:p@n:4222", "n", "nats://n:port"]),
    "DYN_SYSTEM_PORT": st.sampled_from(["9000", "-1", "0", "x"]),
    "DYN_HTTP_PORT": st.sampled_from(["9000", "x"]),
    "DYN_STORE_KV": st.sampled_from(["etcd", "file", "mem", "?"]),
    "DYN_REQUEST_PLANE": st.sampled_from(["nats", "tcp"]),
}


def some(choices: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=choices)


@settings(max_examples=300, deadline=None)
@given(ROLES, some(OPTIONAL), some(NATIVE), st.sampled_from([PINNED, NEWER, LAPTOP]))
def test_a_sound_plan_or_a_config_error(
    role: str, given_settings: dict[str, Any], native: dict[str, str], facts: Any
) -> None:
    container = Container({"role": role, **given_settings}, native=native, facts=facts)
    try:
        plan = build(container)
    except ConfigError as error:
        assert error.problems
        assert len(set(error.problems)) == len(error.problems)
        for line in error.problems:
            assert line.startswith("cannot ")
            assert "\n" not in line
            assert "u:p@" not in line
        return
    names = [p.name for p in plan.processes]
    assert len(set(names)) == len(names)
    known = {*names, *(g.name for g in plan.gates)}
    sockets = [(port.number, port.host) for port in plan.ports]
    assert len(set(sockets)) == len(sockets)
    started: set[str] = {g.name for g in plan.gates}
    for process in plan.processes:
        assert {*process.needs, *process.stops_before} <= known
        assert set(process.needs) <= started, "listed in an order in which they can start"
        started.add(process.name)
        assert process.argv[0]
        assert not set(process.env) & {n for n, v in native.items() if v}, "a variable of the container wins"
        assert 0 < process.grace < plan.stop_timeout
