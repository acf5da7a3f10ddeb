"""SGLang itself, on the CPU, from the batch script: two workers of two nodes each."""

from __future__ import annotations

from pathlib import Path

import pytest

from entrypoint.node.job_ports import job_ports, shift
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import Job, Submitter
from tests.support import cpu_engine
from tests.support.available import available

pytestmark = [pytest.mark.slurm, pytest.mark.engine_more]

INTERFACE = "eth0"
"""Of every node, towards the others."""


@pytest.fixture(scope="module")
def small(base: Path) -> Path:
    """A model with real weights, readable by everybody."""
    return cpu_engine.make_model(base / "models" / "small")


def settings(model: Path, gpus: int = 1) -> dict[str, str]:
    """The CPU engine's, over the nodes' own interface. `gpus`: ranks of a node."""
    return cpu_engine.settings(model, gpus=gpus) | {
        "GLOO_SOCKET_IFNAME": INTERFACE, "UCX_NET_DEVICES": INTERFACE, "GLM47_INTERFACE": INTERFACE,
        "GLM47_ENGINE": "sglang", "GLM47_START_TIMEOUT": "600",
    }  # fmt: skip


def test_prefill_and_decode_over_four_nodes(submit: Submitter, six_nodes: Cluster, small: Path) -> None:
    """TP 2 on both sides: each rank has one of two KV heads, on a node of its own."""
    available(cpu_engine.engine_python)
    asked = cpu_engine.prompts()
    right = cpu_engine.reference(small, asked)
    job = submit(
        "disagg.sbatch", "--nodes=4",
        **{
            **settings(small),
            "GLM47_PREFILL_WORKERS": "1", "GLM47_PREFILL_NODES": "2",
            "GLM47_DECODE_WORKERS": "1", "GLM47_DECODE_NODES": "2",
        },
    )  # fmt: skip
    host, _, port = job.wait_ready(620).removeprefix("http://").partition(":")
    url = f"http://{six_nodes.address(host)}:{port}"
    assert cpu_engine.greedy(url, asked) == right, job.everything()
    assert cpu_engine.greedy(url, asked * 2, at_once=4) == right * 2
    stops(job)


def test_two_prefill_workers_share_a_node(submit: Submitter, six_nodes: Cluster, small: Path) -> None:
    """Each has one of the node's two GPUs; the decode worker on the other node gets caches from both."""
    available(cpu_engine.engine_python)
    asked = cpu_engine.prompts()
    right = cpu_engine.reference(small, asked)
    job = submit(
        "disagg.sbatch", "--nodes=2",
        **{
            **settings(small, gpus=2),
            "GLM47_PREFILL_WORKERS": "2", "GLM47_PREFILL_WORKERS_PER_NODE": "2", "GLM47_PREFILL_NODES": "1",
            "GLM47_DECODE_WORKERS": "1", "GLM47_DECODE_NODES": "1", "GLM47_DECODE_TP": "1",
        },
    )  # fmt: skip
    host, _, port = job.wait_ready(620).removeprefix("http://").partition(":")
    url = f"http://{six_nodes.address(host)}:{port}"
    assert cpu_engine.greedy(url, asked * 2, at_once=4) == right * 2
    for worker in (0, 1):
        assert f"CUDA_VISIBLE_DEVICES={worker}" in engine_environment(six_nodes, job, worker)
    stops(job)


def engine_environment(cluster: Cluster, job: Job, worker: int) -> list[str]:
    """The variables of prefill worker `worker`'s engine on the first node."""
    pid = job.pid("nvl72d001", f"[-]disaggregation-bootstrap-port {bootstrap_port(job) + shift(worker)} ")
    return cluster.on_node("nvl72d001", "cat", f"/proc/{pid}/environ").split("\0")


def bootstrap_port(job: Job) -> int:
    """The first worker's."""
    return job_ports(job.number)["bootstrap_port"]


def stops(job: Job) -> None:
    """It does so with 0 when it is asked to."""
    job.cancel("--signal=TERM", "--batch")
    assert job.wait_over(90) == "COMPLETED", job.everything()
    assert job.output.strip().splitlines()[-1].endswith("ended with 0: asked to stop, and stopped in time")
