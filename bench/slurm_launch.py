"""What starting a job costs: launch steps, and seconds until every node's runner is up and all is ready.

One run compares `sbatch/disagg.sbatch` (one srun over all nodes) with a batch script that starts the same
runners as the original deployment's job scripts start theirs: one `srun` per node in a loop, and before
each another one that asks the node for its address. A real Slurm cluster of six nodes in namespaces on this
machine, the mocker as the engine.

    python bench/slurm_launch.py [ROUNDS]        # root; Slurm installed (tests/slurm/install.sh)
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from entrypoint.commands.demo.model import make_demo_model
from entrypoint.node.job_ports import job_ports
from entrypoint.supervise.status.client import get
from tests.slurm import image as images
from tests.slurm.cluster import USER, Cluster, wait_for
from tests.slurm.conftest import STANDIN

LAYOUTS = {2: (1, 1), 4: (2, 2), 6: (4, 2)}
"""Nodes of the job: nodes of the prefill worker and of the decode worker."""

LOOP = """\
#!/bin/bash
#SBATCH --ntasks-per-node=1
export ROLE=auto GLM47_LOG_DIR=$SLURM_SUBMIT_DIR/logs/$SLURM_JOB_ID
mkdir -p "$GLM47_LOG_DIR"
passed=$(compgen -e | grep -E '^(ROLE|GLM47_.*)$' | paste -sd,)
for node in $(scontrol show hostnames "$SLURM_JOB_NODELIST"); do
	on="--nodes=1 --ntasks=1 --nodelist=$node --overlap"
	address=$(srun $on ip addr | grep -m1 'inet 10.' | awk '{print $2}')
	echo "$node $address"
	srun $on --output="$GLM47_LOG_DIR/%N.out" --container-image="$SITE_IMAGE" \\
		--container-mounts="$GLM47_MODEL_PATH:$GLM47_MODEL_PATH:ro,$GLM47_LOG_DIR:$GLM47_LOG_DIR" \\
		--container-env="$passed" glm47-runner run &
done
wait
"""


def main(rounds: int) -> None:
    """Print the table."""
    base = Path(tempfile.mkdtemp(prefix="glm47-slurm-", dir="/var/tmp"))
    base.chmod(0o755)
    image = base / "glm47-runner.sqsh"
    cluster = Cluster(base / "cluster", bin_first=base / "bin")
    try:
        images.make(image)
        shutil.copytree(STANDIN, base / "bin")
        shutil.copytree(images.REPOSITORY / "sbatch", base / "sbatch")
        (base / "sbatch" / "loop.sbatch").write_text(LOOP)
        model = make_demo_model(base / "models" / "GLM-4.7-NVFP4")
        for each in (model.parent, model, *model.iterdir()):
            each.chmod(0o755 if each.is_dir() else 0o644)
        cluster.up()
        print("| nodes | launch | srun steps | every runner up | ready |")
        print("|---|---|---|---|---|")
        scripts = {"disagg.sbatch": "one srun", "loop.sbatch": "loop, as the original"}
        for nodes in LAYOUTS:
            found: dict[str, list[tuple[int, float, float]]] = {script: [] for script in scripts}
            for _ in range(rounds):
                for script in scripts:  # in turn, so that both meet the same load
                    found[script].append(measure(cluster, base, script, nodes, image, model))
            for script, name in scripts.items():
                up, ready = (
                    statistics.median(column) for column in list(zip(*found[script], strict=True))[1:]
                )
                print(
                    f"| {nodes} | {name} | {found[script][0][0]} | {up:.1f} s | {ready:.1f} s |", flush=True
                )
    finally:
        cluster.down()
        images.remove(image)
        shutil.rmtree(base, ignore_errors=True)


def measure(
    cluster: Cluster, base: Path, script: str, nodes: int, image: Path, model: Path
) -> tuple[int, float, float]:
    """(launch steps, seconds from the batch script's start to all runners up, to ready)."""
    prefill, decode = LAYOUTS[nodes]
    directory = Path(tempfile.mkdtemp(dir=cluster.shared))
    os.chown(directory, USER, USER)
    env = {
        "SITE_IMAGE": str(image),
        "SITE_ENV": "/nonexistent",
        "GLM47_MODEL_PATH": str(model),
        "GLM47_ENGINE": "mocker",
        "GLM47_PREFILL_WORKERS": "1",
        "GLM47_PREFILL_NODES": str(prefill),
        "GLM47_DECODE_NODES": str(decode),
        "STANDIN_SRUN": shutil.which("srun") or "",
    }
    command = ("sbatch", "--parsable", f"--nodes={nodes}", str(base / "sbatch" / script))
    job = int(cluster.as_user(*command, env=env, cwd=directory))
    wait_for((directory / "logs").exists, 30, "the batch script's start", 0.02)
    began = time.monotonic()
    ports = job_ports(job)
    names = cluster.names[:nodes]
    silent = set(names)
    while silent:
        for name in list(silent):
            try:
                get(f"http://{cluster.address(name)}:{ports['health_port']}", "/livez", 1.0)
            except OSError:
                continue
            silent.discard(name)
        time.sleep(0.02)
        if time.monotonic() > began + 60:
            raise TimeoutError(f"no runner on {silent}")
    up = time.monotonic() - began
    head = f"http://{cluster.address(names[0])}:{ports['health_port']}"
    wait_for(lambda: get(head, "/readyz")[0] == 200, 60, "ready", 0.05)
    ready = time.monotonic() - began
    steps = cluster.as_user("scontrol", "--oneliner", "show", "job", str(job))
    assert "RUNNING" in steps
    # Steps are numbered from 0: the next free number is how many were launched.
    listed = cluster.as_user("squeue", "--steps", "--noheader", f"--jobs={job}", "--format=%i").split()
    launched = max(int(step.partition(".")[2]) for step in listed if step.partition(".")[2].isdigit()) + 1
    cluster.as_user("scancel", "--full", "--signal=KILL", str(job))
    wait_for(lambda: cluster.idle() == len(cluster.names), 60, "idle nodes")
    return launched, up, ready


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
