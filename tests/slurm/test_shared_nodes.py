"""Several workers of a role on one node, as tasks of a real Slurm job; the mocker is the engine."""

from __future__ import annotations

import json
import time

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.conftest import Job, Submitter, ask, chat

pytestmark = pytest.mark.slurm

EIGHT = {
    "GLM47_PREFILL_WORKERS": "8", "GLM47_PREFILL_WORKERS_PER_NODE": "2", "GLM47_PREFILL_NODES": "1",
    "GLM47_DECODE_WORKERS": "2", "GLM47_DECODE_NODES": "1",
}  # fmt: skip
"""Prefill on nodes 1 to 4, two workers each; decode on 5 and 6, where a task of two is spare."""
FOUR = {
    "GLM47_PREFILL_WORKERS": "4", "GLM47_PREFILL_WORKERS_PER_NODE": "2",
}  # fmt: skip
"""Four prefill workers of TP 2 on two nodes, the script's own decode worker of TP 8 on two."""


def last_line(job: Job) -> str:
    return job.output.strip().splitlines()[-1]


def instances(cluster: Cluster, url: str) -> dict[str, int]:
    """How many instances of each component the frontend lists."""
    found = [i["component"] for i in ask(cluster, url, "/health")["instances"] if i["endpoint"] == "generate"]
    return {name: found.count(name) for name in set(found)}


def test_ten_workers_on_six_nodes_answer_and_stop(submit: Submitter, six_nodes: Cluster) -> None:
    job = submit("disagg.sbatch", "--nodes=6", **EIGHT)
    url = job.wait_ready(90)
    assert chat(six_nodes, url)["choices"][0]["message"]["content"]
    assert instances(six_nodes, url) == {"prefill": 8, "backend": 2}
    names = {path.name for path in job.logs.iterdir()}
    assert {f"nvl72d00{1 + i // 2}_prefill_w{i}.log" for i in range(8)} <= names
    assert {"nvl72d001_runner.log", "nvl72d001_runner_w1.log", "nvl72d005_decode_w0.log"} <= names
    assert "nvl72d005_runner_w1.log" not in names
    spare = [p.read_text() for p in job.logs.glob("nvl72d005.*.out") if "nothing to do: " in p.read_text()]
    assert len(spare) == 1 and len(list(job.logs.glob("*.out"))) == 12
    # Every worker by name, where the whole deployment is shown.
    nodes = json.loads((job.logs / "status.json").read_text())["nodes"]
    assert {node["holds"] for node in nodes.values()} == {
        *(f"prefill worker {i} rank 0" for i in range(8)), "decode worker 0 rank 0", "decode worker 1 rank 0",
    }  # fmt: skip
    assert {"nvl72d004", "nvl72d004/1", "nvl72d005"} <= set(nodes) and "nvl72d005/1" not in nodes
    job.cancel("--signal=TERM", "--batch")
    assert job.wait_over() == "COMPLETED", job.everything()
    assert last_line(job).endswith("ended with 0: asked to stop, and stopped in time")


def test_one_worker_that_dies_is_named_and_ends_the_job(submit: Submitter, six_nodes: Cluster) -> None:
    job = submit("disagg.sbatch", "--nodes=4", **FOUR)
    url = job.wait_ready(90)
    assert instances(six_nodes, url) == {"prefill": 4, "backend": 1}
    plan = json.loads((job.logs / "plan.json").read_text())
    first = next(port["number"] for port in plan["ports"] if port["name"] == "bootstrap")
    neighbour = job.pid("nvl72d002", f"[-]bootstrap-ports {first}")
    second = job.pid("nvl72d002", f"[-]bootstrap-ports {first + 7}")
    assert neighbour != second
    killed = time.monotonic()
    six_nodes.on_node("nvl72d002", "kill", "-KILL", str(second))
    assert job.wait_over(40) == "FAILED", job.everything()
    print(f"prefill worker 3 killed; the job was over after {time.monotonic() - killed:.1f} s")
    assert job.exit_code == "137:0", job.everything()
    assert "prefill worker 3 rank 0 on nvl72d002/1: " in last_line(job), job.everything()
    said = (job.logs / "nvl72d001_runner.log").read_text().splitlines()[-1]
    assert "lost prefill worker 3 rank 0 on nvl72d002/1: " in said, said


def test_a_step_with_too_few_tasks_is_refused(submit: Submitter, six_nodes: Cluster) -> None:
    """A layout that only the containers know of: their settings are in a file."""
    whole = {"GLM47_PREFILL_WORKERS_PER_NODE": "1", "GLM47_PREFILL_NODES": "1"}
    job = submit("disagg.sbatch", "--nodes=4", **{**FOUR, **whole})
    assert job.wait_over() == "FAILED"
    assert job.exit_code == "78:0", job.everything()
    assert "the job has too few nodes, 4" in last_line(job)
    settings = job.directory / "more.env"
    settings.write_text("GLM47_PREFILL_WORKERS_PER_NODE=2\n")
    settings.chmod(0o644)
    few = {"GLM47_PREFILL_WORKERS": "4", "GLM47_PREFILL_NODES": "1"}
    mounted = {"GLM47_ENV_FILE": str(settings), "SITE_MOUNTS": f"{settings.parent}:{settings.parent}"}
    job = submit("disagg.sbatch", "--nodes=4", **few, **mounted)
    assert job.wait_over() == "FAILED"
    assert job.exit_code == "78:0", job.everything()
    assert "use srun --ntasks-per-node=2" in last_line(job), job.everything()
