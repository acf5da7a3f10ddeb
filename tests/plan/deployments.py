"""Containers to plan, by name: each is one line of a real deployment, described as its environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from entrypoint.node import placement, slurm
from entrypoint.node.facts import EngineFacts, Facts, ModelFacts
from entrypoint.node.network import Network
from entrypoint.plan import build as planner
from entrypoint.plan.types import Plan
from entrypoint.settings.schema import Settings

MODEL = ModelFacts(config_read=True, needs_bos_fix=True)
IMAGE = EngineFacts(
    python="/opt/dynamo/venv/bin/python3",
    dynamo="0.8.1",
    sglang="0.5.6.post2",
    flashinfer="0.5.3",
    sglang_dir="/sgl-workspace/sglang/python/sglang",
    flashinfer_dir="/opt/dynamo/venv/lib/python3.12/site-packages/flashinfer",
    flashinfer_cubin_dir="/opt/dynamo/venv/lib/python3.12/site-packages/flashinfer_cubin",
    binaries={"etcd": "/usr/local/bin/etcd/etcd", "nats-server": "/usr/bin/nats-server"},
)
PINNED = Facts(MODEL, IMAGE)
NEWER = Facts(
    replace(MODEL, needs_bos_fix=False),
    replace(IMAGE, dynamo="1.3.1", sglang="0.5.14", flashinfer="0.6.12"),
)
LAPTOP = Facts(ModelFacts(error="cannot read GLM47_MODEL_PATH: /model: it does not exist"), EngineFacts())


@dataclass(frozen=True)
class Container:
    """What one container is given."""

    settings: Mapping[str, Any]
    environ: Mapping[str, str] = field(default_factory=dict)
    native: Mapping[str, str] = field(default_factory=dict)
    facts: Facts = PINNED
    address: str | None = "10.0.0.7"
    network: Network = field(default_factory=lambda: Hosts())


class Hosts(Network):
    """A machine called node7 with the address 10.0.0.7/24 on eth7, and what names lead to."""

    def __init__(self, own: str = "10.0.0.7", **others: str) -> None:
        self._hosts = {"node7": own, **others}

    def name(self) -> str:
        return "node7"

    def addresses(self, host: str) -> tuple[str, ...]:
        if host[0].isdigit() or ":" in host:
            return (host,)
        return tuple(filter(None, self._hosts.get(host, "").split()))

    def is_own(self, address: str) -> bool:
        return address in ("10.0.0.7", "fd00::7") or address.startswith("127.") or address == "::1"

    def interface(self, address: str) -> str | None:
        return "eth7" if address in ("10.0.0.7", "fd00::7") else None

    def subnet(self, address: str) -> str | None:
        return "10.0.0.0/24" if address == "10.0.0.7" else None


def build(container: Container) -> Plan:
    """Its plan."""
    settings = Settings(**{("ROLE" if k == "role" else k): v for k, v in container.settings.items()})
    if slurm.applies(container.environ, settings):
        return _in_job(container, settings)
    place = placement.from_environ(
        container.environ, settings, lambda peer, interface: container.address, container.network
    )
    return planner.build_plan(settings, {}, place, container.facts, container.native)


def _in_job(container: Container, settings: Settings) -> Plan:
    shared = slurm.shared_values(container.environ, settings)
    settings, origins = slurm.with_values(settings, {}, shared, "SLURM job 1234")
    job = slurm.job_of(container.environ, settings)
    place = placement.in_job(
        job, settings, lambda peer, interface: container.address, lambda name: None, container.network
    )
    return planner.build_plan(settings, origins, place, container.facts, container.native)


def node(index: int, nodes: str = "nvl72d[001-006]", slot: int = 0) -> dict[str, str]:
    """The environment of a Slurm task on one node of a job."""
    named = {"SLURM_JOB_ID": "1234", "SLURM_JOB_NODELIST": nodes, "SLURM_NODEID": str(index)}
    return {**named, "SLURM_LOCALID": str(slot)} if slot else named


HEAD = {"head_address": "node1"}
PREFILL4 = {**HEAD, "role": "prefill", "prefill_nodes": 4, "leader_address": "node2"}
MOCK = {"engine": "mocker"}
THREE = {"etcd_members": "a=node1,b=node2,c=node3"}
SIX = {
    "prefill_workers": 2, "prefill_nodes": 2, "decode_workers": 1, "decode_nodes": 2,
    "frontends": 2, "nginx": True,
}  # fmt: skip
"""The default of sbatch/disagg.sbatch, behind nginx."""
SHARED = {"prefill_workers": 4, "prefill_workers_per_node": 2, "decode_workers": 1, "decode_nodes": 2}
"""Four prefill workers of TP 2 on two nodes, one decode worker on two."""
FOUR = "nvl72d[001-004]"
OPERATOR = {"DYN_DISCOVERY_BACKEND": "kubernetes", "DYN_NAMESPACE": "default-glm47"}
"""What Dynamo's operator says to a container."""
WITH_NGINX = Facts(MODEL, replace(IMAGE, binaries={**IMAGE.binaries, "nginx": "/usr/sbin/nginx"}))
CONTAINERS = {
    "single": Container({"role": "single"}),
    "auto": Container({}),
    "slurm-1-node": Container({}, node(0, "nvl72d001")),
    "slurm-2p1d-head": Container(SIX, node(0), facts=WITH_NGINX),
    "slurm-2p1d-second-prefill-follower-with-frontend": Container(SIX, node(3)),
    "slurm-2p1d-decode-leader": Container({**SIX, "interface": "enP5p9s0"}, node(4)),
    "slurm-2p1d-decode-follower": Container(SIX, node(5)),
    "slurm-aggregated-mocker-rank-1": Container({"decode_nodes": 2, **MOCK}, node(1)),
    "slurm-shared-head": Container(SHARED, node(0, FOUR)),
    "slurm-shared-second-worker-of-the-head": Container(SHARED, node(0, FOUR, 1)),
    "slurm-shared-second-worker-of-another-node": Container(
        SHARED, node(1, FOUR, 1), native={"CUDA_VISIBLE_DEVICES": "4,5,6,7"}
    ),
    "slurm-shared-decode-leader": Container(SHARED, node(2, FOUR)),
    "single-newer-releases": Container({"role": "single"}, facts=NEWER),
    "single-laptop": Container({"role": "single"}, facts=LAPTOP),
    "single-etcd": Container({"role": "single", "discovery": "etcd"}),
    "single-mocker": Container({"role": "single", **MOCK}),
    "single-mocker-newer-releases": Container({"role": "single", **MOCK}, facts=NEWER),
    "single-mocker-name-with-slash": Container(
        {"role": "single", **MOCK, "served_model_name": "zai-org/GLM-4.7"}
    ),
    "etcd": Container({"role": "etcd", **HEAD}),
    "etcd-of-three": Container({"role": "etcd", **THREE}, facts=replace(PINNED, etcd_member="b")),
    "decode-etcd-of-three": Container({"role": "decode", **THREE}, facts=NEWER),
    "nats": Container({"role": "nats", **HEAD}),
    "frontend": Container({"role": "frontend", **HEAD, "prefill_workers": 1, "decode_workers": 2}),
    "frontend-kv-router": Container({"role": "frontend", **HEAD, "router_mode": "kv"}),
    "frontend-kv-router-events": Container(
        {"role": "frontend", **HEAD, "router_mode": "kv", "frontend_extra_args": "--kv-events"}
    ),
    "frontend-kv-router-newer-releases": Container(
        {"role": "frontend", **HEAD, "router_mode": "kv"}, facts=NEWER
    ),
    "frontend-aggregated-deployment": Container({"role": "frontend", **HEAD}),
    "prefill": Container({"role": "prefill", **HEAD}),
    "decode": Container({"role": "decode", **HEAD}),
    "aggregated": Container({"role": "aggregated", **HEAD}),
    "head-with-prefill": Container({"role": "etcd,nats,frontend,prefill", "prefill_workers": 1}),
    "one-host-1p1d": Container({"role": "etcd,frontend,prefill,decode", "prefill_workers": 1}),
    "prefill-tp16-leader": Container(PREFILL4),
    "prefill-tp16-follower": Container({**PREFILL4, "node_rank": 3}),
    "decode-tp8-dp8": Container(
        {**HEAD, "role": "decode", "decode_nodes": 2, "dp": 8, "leader_address": "node6"}
    ),
    "decode-newer-releases": Container({"role": "decode", **HEAD}, facts=NEWER),
    "decode-kubernetes-discovery": Container({"role": "decode"}, native=OPERATOR),
    "decode-kubernetes-discovery-newer-releases": Container({"role": "decode"}, native=OPERATOR, facts=NEWER),
    "frontend-kubernetes-discovery": Container({"role": "frontend", "prefill_workers": 1}, native=OPERATOR),
    "decode-lws-follower": Container(
        {**HEAD, "role": "decode"},
        environ={"LWS_GROUP_SIZE": "2", "LWS_WORKER_INDEX": "1", "LWS_LEADER_ADDRESS": "decode-0.decode"},
    ),
    "prefill-mocker": Container({"role": "prefill", **HEAD, **MOCK}),
    "decode-mocker": Container({"role": "decode", **HEAD, **MOCK}),
    "decode-mocker-follower": Container(
        {"role": "decode", **HEAD, **MOCK, "nnodes": 2, "node_rank": 1, "leader_address": "node6"}
    ),
    "frontend-mocker": Container({"role": "frontend", **HEAD, **MOCK, "prefill_workers": 1}),
    "decode-with-native-variables": Container(
        {"role": "decode", "extra_args": "--tp 2 --context-length=65536", "etcd_password": "hunter2"},
        native={
            "ETCD_ENDPOINTS": "https://me:word@etcd.example:2379",
            "DYN_SYSTEM_PORT": "9090",
            "NCCL_MNNVL_ENABLE": "0",
            "TRITON_CACHE_DIR": "/kernels",
        },
    ),
}
