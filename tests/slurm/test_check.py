"""`check --all` over the nodes of a real Slurm job, in one srun."""

from __future__ import annotations

import json

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.conftest import Submitter

pytestmark = pytest.mark.slurm

LAYOUT = {
    "ROLE": "auto", "GLM47_ENGINE": "mocker", "GLM47_PREFILL_WORKERS": "2", "GLM47_PREFILL_NODES": "2",
    "GLM47_DECODE_NODES": "2",
}  # fmt: skip


def test_six_nodes_in_one_srun_and_the_broken_one_first(submit: Submitter, six_nodes: Cluster) -> None:
    """Node 4 lacks the model: its cache of it is another directory, which the step's environment names."""
    passed = {**LAYOUT, "GLM47_MODEL_PATH": str(submit.model)}
    names = ",".join(passed)
    image = (f"--container-image={submit.image}", f"--container-env={names}",
             f"--container-mounts={submit.model}:{submit.model}:ro")  # fmt: skip
    broken = 'if [ "$SLURM_NODEID" = 3 ]; then export GLM47_MODEL_PATH=/nowhere; fi'
    command = ("srun", "--nodes=6", "--ntasks-per-node=1", "--mpi=none", *image)
    one = f"{broken}; glm47-runner check --all --format=json || echo ended with $?"
    shown = six_nodes.as_user(*command, "bash", "-c", one, env=passed)
    text, _, ended = shown.rpartition("ended with ")
    assert ended.strip() == "66", shown
    found = json.loads(text)
    assert found["nodes"][0]["node"] == "nvl72d004" and len(found["nodes"]) == 6
    assert found["exclude"] == ["nvl72d004"] and found["exit_code"] == 66
    others = [f["text"] for n in found["nodes"][1:] for f in n["findings"] if f["state"] == "problem"]
    assert not [text for text in others if "GLM47_PYTHON" not in text], others
    # Six namespaces of one machine have one clock.
    assert all(abs(node["clock"]) <= node["clock_error"] < 1.0 for node in found["nodes"] if node["clock"])


def test_workers_that_share_a_node_are_looked_at_once(submit: Submitter, six_nodes: Cluster) -> None:
    """As many tasks as the deployment has; the head's last line is its table's, spare tasks say theirs."""
    layout = {
        "ROLE": "auto", "GLM47_ENGINE": "mocker", "GLM47_PREFILL_WORKERS": "4",
        "GLM47_PREFILL_WORKERS_PER_NODE": "2", "GLM47_MODEL_PATH": str(submit.model),
    }  # fmt: skip
    image = (f"--container-image={submit.image}", f"--container-env={','.join(layout)}",
             f"--container-mounts={submit.model}:{submit.model}:ro")  # fmt: skip
    command = ("srun", "--nodes=3", "--ntasks=6", "--ntasks-per-node=2", "--overcommit", "--mpi=none", *image)
    one = "glm47-runner check --all --format=json || echo ended with $?"
    shown = six_nodes.as_user(*command, "bash", "-c", one, env=layout)
    found = json.loads(shown.partition("ended with ")[0])
    assert len(found["nodes"]) == 3 and not found["exclude"], shown
    assert [node["holds"] for node in found["nodes"]][:2] == ["prefill workers 0, 1", "prefill workers 2, 3"]
