"""What cannot work, and the one line a person gets for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from entrypoint.errors import ConfigError, ExitCode
from entrypoint.node.facts import Facts, ModelFacts
from tests.plan.deployments import HEAD, IMAGE, LAPTOP, MODEL, NEWER, PINNED, Container, build, node

DECODE: Mapping[str, Any] = {"role": "decode", **HEAD}
FOUR: Mapping[str, Any] = {**DECODE, "nnodes": 4, "leader_address": "node2"}
NO_ROUTING = "sglang 0.5.6.post2 gives flashinfer_trtllm no routing method for GLM (0.5.8 does)"
SGLANG_058 = replace(PINNED, engine=replace(IMAGE, sglang="0.5.8", flashinfer="0.6.1"))

THREE = {"role": "etcd", "etcd_members": "node1,node2,node3"}

REFUSED: dict[str, tuple[Container, str]] = {
    "an etcd member that is not listed": (
        Container({**THREE, "etcd_member": "node4"}),
        "cannot use GLM47_ETCD_MEMBER: node4: GLM47_ETCD_MEMBERS has node1, node2, node3: name one of them",
    ),
    "etcd members in a Slurm job": (
        Container({"etcd_members": "node1,node2,node3", "decode_nodes": 2}, node(0)),
        "cannot use GLM47_ETCD_MEMBERS: node1,node2,node3: ROLE=auto under SLURM runs one etcd, on the head: "
        "leave it out, or set ETCD_ENDPOINTS to members that run elsewhere",
    ),
    "more ranks than GPUs": (
        Container({**DECODE, "tp": 8}),
        "cannot use GLM47_TP: 8: 1 node of 4 GPUs cannot hold 8 ranks: use at most 4",
    ),
    "ranks that do not divide over nodes": (
        Container({**FOUR, "decode_tp": 6}),
        "cannot use GLM47_DECODE_TP: 6: 6 ranks do not divide over 4 nodes: use one of 4, 8, 16",
    ),
    "attention heads": (
        Container({**DECODE, "tp": 10, "gpus_per_node": 10}),
        "cannot use GLM47_TP: 10: 96 attention heads do not divide by 10: use one of 1, 2, 4, 8",
    ),
    "nodes that no TP suits": (
        Container({**FOUR, "nnodes": 5}),
        "cannot use GLM47_TP: 20: 96 attention heads do not divide by 20: "
        "no TP suits 5 nodes of 4 GPUs: use another number of nodes",
    ),
    "KV heads": (
        Container({**DECODE, "gpus_per_node": 3}),
        "cannot use GLM47_TP: 3: 8 KV heads can neither be split nor replicated over 3: use one of 1, 2",
    ),
    "NVFP4 block": (
        Container(
            {**FOUR, "tp": 32, "gpus_per_node": 8, "extra_args": "--ep 1"},
            facts=Facts(replace(MODEL, moe_intermediate_size=1280), IMAGE),
        ),
        "cannot use GLM47_TP: 32: MoE width per rank 1280/32 is not a multiple of 16 (one NVFP4 block): "
        "use one of 4, 8, 16",
    ),
    "DP that does not divide TP": (
        Container({**DECODE, "dp": 3}),
        "cannot use GLM47_DP: 3: it must divide TP 4: use one of 1, 2, 4",
    ),
    "decode DP without the balance that it asserts on": (
        Container({**DECODE, "dp": 4, "prefill_round_robin": False}),
        "cannot use GLM47_PREFILL_ROUND_ROBIN: false: sglang before 0.5.8 needs it on decode workers of "
        "DP 4: set it to true, or GLM47_DP to 1",
    ),
    "EP that does not divide TP": (
        Container({**DECODE, "ep": 3}),
        "cannot use GLM47_EP: 3: it must divide TP 4: use one of 1, 2, 4",
    ),
    "EP on the default runner of the pinned release": (
        Container({**DECODE, "ep": 4, "extra_args": "--moe-runner-backend triton"}),
        "cannot use GLM47_EP: 4: sglang 0.5.6.post2 mixes global and local expert scales with the MoE runner "
        "triton: use 1, or GLM47_MOE_RUNNER=flashinfer_cutlass with EP equal to TP",
    ),
    "the same on a newer release": (
        Container({**DECODE, "ep": 4, "extra_args": "--moe-runner-backend cutlass"}, facts=NEWER),
        "cannot use GLM47_EP: 4: sglang 0.5.14 mixes global and local expert scales with the MoE runner "
        "cutlass: use 1, or GLM47_MOE_RUNNER=flashinfer_cutlass with EP equal to TP",
    ),
    "the original's EP row: 8 nodes, EP 4": (
        Container({**DECODE, "nnodes": 8, "leader_address": "n", "ep": 4}),
        "cannot use GLM47_EP: 4: flashinfer_cutlass takes EP 1 or EP equal to TP only: use 1 or 32",
    ),
    "a runner that asserts": (
        Container({**DECODE, "moe_runner": "flashinfer_trtllm"}),
        f"cannot use GLM47_MOE_RUNNER: flashinfer_trtllm: {NO_ROUTING}: use flashinfer_cutlass or auto",
    ),
    "a runner that answers garbage, by extra argument": (
        Container({**DECODE, "extra_args": "--moe-runner-backend=flashinfer_trtllm"}, facts=SGLANG_058),
        "cannot use GLM47_EXTRA_ARGS --moe-runner-backend: flashinfer_trtllm: flashinfer 0.6.1 routes GLM "
        "wrongly: garbage answers (right from 0.6.2): use flashinfer_cutlass or auto",
    ),
    "two processes on one port": (
        Container({"role": "single", "http_port": 8081}),
        "cannot use port 8081 twice: GLM47_SYSTEM_PORT (aggregated) and GLM47_HTTP_PORT (frontend): "
        "change one of them",
    ),
    "a process on the health port": (
        Container({"role": "etcd", "etcd_port": 9480}),
        "cannot use port 9480 twice: GLM47_ETCD_PORT (etcd) and GLM47_HEALTH_PORT (health): "
        "change one of them",
    ),
    "an extra argument that takes a port": (
        Container({"role": "single", "frontend_extra_args": "--http-port 9480"}),
        "cannot use port 9480 twice: GLM47_FRONTEND_EXTRA_ARGS --http-port (frontend) and "
        "GLM47_HEALTH_PORT (health): change one of them",
    ),
    "Dynamo's own variable that takes a port": (
        Container({"role": "single"}, native={"DYN_HTTP_PORT": "8081"}),
        "cannot use port 8081 twice: GLM47_SYSTEM_PORT (aggregated) and DYN_HTTP_PORT (frontend): "
        "change one of them",
    ),
    "a port that is none": (
        Container({"role": "single"}, native={"DYN_HTTP_PORT": "http"}),
        "cannot use DYN_HTTP_PORT: http: give a port, 1 to 65535, or unset it",
    ),
    "a system port Dynamo does not take": (
        Container({**DECODE, "system_port": 32768}),
        "cannot use GLM47_SYSTEM_PORT: 32768: Dynamo takes system ports below 32768 only: "
        "give a lower one, such as 8081",
    ),
    "decode without etcd": (
        Container({"role": "decode"}),
        "cannot plan ROLE: decode: no etcd is named: set GLM47_HEAD_ADDRESS to the node that runs it, or "
        "ETCD_ENDPOINTS, or add etcd to ROLE",
    ),
    "prefill without etcd": (
        Container({"role": "prefill"}),
        "cannot plan ROLE: prefill: no etcd is named: set GLM47_HEAD_ADDRESS to the node that runs it, or "
        "ETCD_ENDPOINTS, or add etcd to ROLE",
    ),
    "the mocker without NATS": (
        Container({"role": "etcd,decode", "engine": "mocker"}),
        "cannot plan ROLE: etcd,decode: no NATS server is named: set GLM47_HEAD_ADDRESS to the node that "
        "runs it, or NATS_SERVER, or add nats to ROLE",
    ),
    "etcd endpoints that are none": (
        Container(DECODE, native={"ETCD_ENDPOINTS": "http://me:word@:port"}),
        "cannot use ETCD_ENDPOINTS: :port: give http://host:port",
    ),
    "a rank the worker does not have": (
        Container({**FOUR, "node_rank": 4}),
        "cannot use GLM47_NODE_RANK: 4: ranks of 4 nodes are 0 to 3: lower it, or raise GLM47_NNODES",
    ),
    "ranks that do not know their leader": (
        Container({**DECODE, "nnodes": 2}),
        "cannot use GLM47_NNODES: 2: the ranks do not know their leader: set GLM47_LEADER_ADDRESS to the "
        "address of rank 0",
    ),
    "the same, by LeaderWorkerSet": (
        Container(DECODE, environ={"LWS_GROUP_SIZE": "2", "LWS_WORKER_INDEX": "0"}),
        "cannot use LWS_GROUP_SIZE: 2: the ranks do not know their leader: set GLM47_LEADER_ADDRESS to the "
        "address of rank 0",
    ),
    "a group size that is none": (
        Container(DECODE, environ={"LWS_GROUP_SIZE": "two"}),
        "cannot use LWS_GROUP_SIZE: two: give a whole number of at least 1",
    ),
    "auto under LeaderWorkerSet": (
        Container({}, environ={"LWS_GROUP_SIZE": "2"}),
        "cannot work out ROLE: auto: LeaderWorkerSet does not say what its group is for: "
        "set ROLE to prefill, decode or aggregated",
    ),
    "one machine of two nodes": (
        Container({"role": "single", "nnodes": 2}),
        "cannot use ROLE: single with GLM47_NNODES=2: it is one machine: use aggregated on every node, and "
        "etcd and frontend on one",
    ),
    "aggregated beside prefill": (
        Container({"role": "single", "prefill_workers": 1}),
        "cannot use GLM47_PREFILL_WORKERS: 1 with ROLE=single: an aggregated worker does its own prefill: "
        "use ROLE=decode, or set it to 0",
    ),
    "a file store across containers": (
        Container({**DECODE, "discovery": "file"}),
        "cannot use GLM47_DISCOVERY: file with ROLE=decode: workers and frontend are in different "
        "containers: use etcd, or set DYN_FILE_KV to a directory that both have, on one machine",
    ),
    "two workers that do not fit": (
        Container({**HEAD, "role": "prefill,decode", "tp": 4}),
        "cannot use ROLE: prefill,decode: together they take 8 GPUs of 4: lower GLM47_PREFILL_TP or "
        "GLM47_DECODE_TP, or give each its own container",
    ),
    "two workers of several nodes": (
        Container({**HEAD, "role": "prefill,decode", "nnodes": 2, "leader_address": "n"}),
        "cannot use ROLE: prefill,decode with GLM47_NNODES=2: two workers of several nodes would share one "
        "container: give each its own",
    ),
    "padding switched off on the pinned release": (
        Container({**DECODE, "modelopt_patch": "off"}),
        "cannot use GLM47_MODELOPT_PATCH: off: sglang 0.5.6.post2 stops at every TP while it loads the "
        "experts: use pad (GLM47_ALLOW_WRONG_PADDING=true tries it all the same)",
    ),
    "padding switched off": (
        Container({**FOUR, "modelopt_patch": "off"}, facts=NEWER),
        "cannot use GLM47_MODELOPT_PATCH: off: MoE width per rank 96 (decode, TP 16) needs padding to 128, "
        "which sglang asserts on: use pad, or a TP whose width is a multiple of 64",
    ),
    "the original's padding": (
        Container({**FOUR, "modelopt_patch": "assert"}, facts=NEWER),
        "cannot use GLM47_MODELOPT_PATCH: assert: MoE width per rank 96 (decode, TP 16) is then padded "
        "wrongly: garbage answers: use pad (GLM47_ALLOW_WRONG_PADDING=true serves them all the same)",
    ),
    "a drain that does not fit the stop": (
        Container({"role": "single", "drain_delay": 45}),
        "cannot use GLM47_DRAIN_DELAY: 45: GLM47_STOP_TIMEOUT 60 leaves the frontend 42.5 s to drain: "
        "lower it, or raise GLM47_STOP_TIMEOUT",
    ),
    "an argument of no option": (
        Container({**DECODE, "extra_args": "4 --tp"}),
        "cannot read GLM47_EXTRA_ARGS: 4: it belongs to no option: begin with one (--name value), and "
        "leave the command itself out",
    ),
    "a number that is none": (
        Container({**DECODE, "decode_extra_args": "--tp two"}),
        "cannot use GLM47_DECODE_EXTRA_ARGS --tp: two: give a whole number",
    ),
    "a name with a colon": (
        Container({**DECODE, "served_model_name": "glm:4.7"}),
        "cannot use GLM47_SERVED_MODEL_NAME: glm:4.7: SGLang keeps ':' for adapters, and the name becomes a "
        "directory: use a name such as glm-4.7 or zai-org/GLM-4.7",
    ),
    "a name that leaves its directory": (
        Container({**DECODE, "served_model_name": "../glm"}),
        "cannot use GLM47_SERVED_MODEL_NAME: ../glm: SGLang keeps ':' for adapters, and the name becomes a "
        "directory: use a name such as glm-4.7 or zai-org/GLM-4.7",
    ),
    "nginx by hand": (
        Container({"role": "nginx"}),
        "cannot use ROLE: nginx: only ROLE=auto under SLURM places it: leave it out",
    ),
}


def problems(container: Container) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        build(container)
    assert caught.value.exit_code == ExitCode.CONFIG
    return caught.value.problems


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_one_line(name: str) -> None:
    container, line = REFUSED[name]
    assert problems(container) == (line,)


def test_all_problems_come_at_once() -> None:
    several = Container({"role": "decode", "tp": 8, "system_port": 40000, "health_port": 40000, "ep": 3})
    assert [line.split(":")[0] for line in problems(several)] == [
        "cannot plan ROLE",
        "cannot use GLM47_SYSTEM_PORT",
        "cannot use GLM47_TP",
        "cannot use GLM47_EP",
        "cannot use port 40000 twice",
    ]


@pytest.mark.parametrize(
    "container",
    [
        Container({**DECODE, "ep": 4}),
        Container({**DECODE, "ep": 4}, facts=NEWER),
        Container({**DECODE, "tp": 2}, facts=LAPTOP),
        Container({**DECODE, "gpus_per_node": 16}),
        Container({**FOUR, "modelopt_patch": "assert", "allow_wrong_padding": True}),
        Container({**FOUR, "modelopt_patch": "assert", "allow_wrong_padding": True}, facts=NEWER),
        Container({**DECODE, "modelopt_patch": "off"}, facts=NEWER),
        Container({**DECODE, "discovery": "file"}, native={"DYN_FILE_KV": "/shared"}),
        Container({**DECODE, "quantization": "fp8", "moe_runner": "flashinfer_trtllm"}),
        Container({"role": "single"}, facts=Facts(ModelFacts(config_read=True, heads=12, kv_heads=4), IMAGE)),
    ],
)
def test_not_refused(container: Container) -> None:
    assert build(container).processes


def warnings(settings: Mapping[str, Any], **facts: Any) -> tuple[str, ...]:
    return build(Container(settings, **facts)).warnings


def test_tp_16_is_said_to_waste_a_third() -> None:
    assert warnings(FOUR) == (
        "MoE width per rank 96 (decode, TP 16) is padded to 128: 33% more expert weight and work than "
        "needed; workers of TP 8 use the same GPUs without padding",
    )


def test_idle_gpus_are_said() -> None:
    assert warnings({**DECODE, "extra_args": "--tp=2"}) == (
        "decode uses 2 of 4 GPUs: GLM47_EXTRA_ARGS --tp is 2",
    )


def test_ep_that_nobody_ran_is_said() -> None:
    assert warnings({**DECODE, "ep": 4}) == (
        "EP 4 with flashinfer_cutlass was read in sglang 0.5.6.post2, not run: try it before you rely on it",
    )


def test_frontend_that_ignores_prefill_is_said() -> None:
    found = warnings({"role": "etcd,frontend,decode"})
    assert len(found) == 1
    assert found[0].startswith("GLM47_PREFILL_WORKERS is 0, but ROLE has decode")


def test_numbers_come_from_the_model() -> None:
    """TP 16 of a model twice as wide needs no padding, and nothing is said."""
    wide = Facts(replace(MODEL, moe_intermediate_size=3072), IMAGE)
    assert warnings(FOUR, facts=wide) == ()
