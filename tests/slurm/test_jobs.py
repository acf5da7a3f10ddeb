"""The batch scripts on a real Slurm cluster of six nodes, with the mocker as the engine."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.cluster import Cluster, run, wait_for
from tests.slurm.conftest import Job, Submitter, ask, chat

pytestmark = pytest.mark.slurm

DISAGG = {"GLM47_NGINX": "true", "GLM47_FRONTENDS": "2"}
"""The default layout behind nginx: prefill on nodes 1 and 2, prefill on 3 and 4, decode on 5 and 6."""
TWO_NODES = {"GLM47_PREFILL_WORKERS": "1", "GLM47_PREFILL_NODES": "1", "GLM47_DECODE_NODES": "1"}
PORT_OF_HEALTH = 2


def content(answer: dict[str, Any]) -> str:
    text = answer["choices"][0]["message"]["content"]
    assert isinstance(text, str)
    return text


def health_port(url: str) -> int:
    return int(url.rpartition(":")[2]) + PORT_OF_HEALTH


def last_line(job: Job) -> str:
    return job.output.strip().splitlines()[-1]


def test_single_node_serves_and_drains(submit: Submitter, six_nodes: Cluster) -> None:
    job = submit("single_node.sbatch")
    url = job.wait_ready()
    assert content(chat(six_nodes, url))
    plan = json.loads((job.logs / "plan.json").read_text())
    assert plan["roles"] == ["aggregated", "frontend", "nats"] or "aggregated" in plan["roles"]
    assert "etcd" not in plan["roles"]
    job.cancel("--signal=TERM", "--batch")
    assert job.wait_over() == "COMPLETED", job.everything()
    assert last_line(job).endswith("ended with 0: asked to stop, and stopped in time")


def test_the_whole_deployment_from_one_srun(submit: Submitter, six_nodes: Cluster) -> None:
    """Six nodes answer through nginx; the job says where, and leaves its records."""
    job = submit("disagg.sbatch", "--nodes=6", **DISAGG, GLM47_INTERFACE="eth0")
    url = job.wait_ready()
    assert content(chat(six_nodes, url))
    wait_for(lambda: six_nodes.job(job.number)["Comment"] == url, 10, "the job's comment")
    assert job.logs.name.startswith(f"{job.number}_2P_1D_")
    assert (job.logs / "url").read_text() == f"{url}\n"
    for name in ("nvl72d001_prefill_w0.log", "nvl72d004_frontend.log", "nvl72d006_decode_w0.log"):
        assert (job.logs / name).exists()
    status = json.loads((job.logs / "status.json").read_text())
    assert status["ready"] is True
    assert {p["name"] for p in status["processes"]} == {"etcd", "nats", "prefill", "frontend", "nginx"}
    # Both frontends know the workers: whichever nginx picks can answer.
    for head in ("nvl72d001", "nvl72d004"):
        upstream = f"http://{head}:{int(url.rpartition(':')[2]) + 1}"
        assert content(chat(six_nodes, upstream))
    waited = six_nodes.as_user(str(six_nodes.base.parent / "sbatch" / "wait.sh"), str(job.number))
    assert waited == url
    # One launch step beside the batch script's own, whatever the number of nodes.
    steps = six_nodes.as_user("squeue", "--steps", "--noheader", f"--jobs={job.number}", "--format=%i")
    assert [s for s in steps.split() if not s.endswith((".batch", ".extern"))] == [f"{job.number}.0"]
    # From a step beside it, `status` finds the runner of its node, whose ports are the job's own.
    node = "--nodelist=nvl72d005"
    image = (f"--container-image={job.image}", "--container-env=ROLE")
    shown = six_nodes.as_user(
        *("srun", f"--jobid={job.number}", "--overlap", "--nodes=1", "--ntasks=1", node, *image),
        *("glm47-runner", "status", "--format=json"),
        env={"ROLE": "auto"},
    )
    assert json.loads(shown)["node"] == "nvl72d005"


@pytest.mark.parametrize(
    ("words", "node", "label", "others"),
    [
        # One rank dies: its runner says so to its leader, the leader to the head, the head to all.
        ("sleep infinity", "nvl72d006", "decode worker 0 rank 1", (1, 2, 5)),
        # The runner itself is gone: srun stops all other tasks at once; its leader and the head know why.
        ("bin/glm47-runner run", "nvl72d004", "prefill worker 1 rank 1", (1, 3)),
        # The same on the head, which holds etcd, NATS and the API besides.
        ("bin/glm47-runner run", "nvl72d001", "prefill worker 0 rank 0", (2, 4, 5, 6)),
    ],
    ids=["rank", "runner", "runner of the head"],
)
def test_a_killed_rank_ends_the_job_with_76(
    submit: Submitter, six_nodes: Cluster, words: str, node: str, label: str, others: tuple[int, ...]
) -> None:
    job = submit("disagg.sbatch", "--nodes=6", **DISAGG)
    job.wait_ready()
    killed = time.monotonic()
    six_nodes.on_node(node, "kill", "-KILL", str(job.pid(node, words)))
    assert job.wait_over(40) == "FAILED", job.everything()
    took = time.monotonic() - killed
    print(f"{label} on {node}: {words} killed; the job was over after {took:.1f} s")
    assert took < 30
    assert job.exit_code == "76:0", job.everything()
    assert f"{label} on {node}" in last_line(job), job.everything()
    for other in others:
        said = (job.logs / f"nvl72d00{other}_runner.log").read_text()
        assert said.splitlines()[-1].partition("| ")[2].startswith(f"lost {label} on {node}: "), said


def test_the_heads_etcd_is_killed_and_the_job_goes_on(submit: Submitter, six_nodes: Cluster) -> None:
    job = submit("disagg.sbatch", "--nodes=6", **DISAGG)
    url = job.wait_ready()
    head = "nvl72d001"
    six_nodes.on_node(head, "kill", "-KILL", str(job.pid(head, "etcd --name=glm47")))

    def etcd_is_back() -> bool:
        status = ask(six_nodes, f"http://{head}:{health_port(url)}", "/status")
        return any(p["name"] == "etcd" and p["restarts"] == 1 and p["ready"] for p in status["processes"])

    wait_for(etcd_is_back, 20, "etcd ready again")
    # Longer than a lease lives: whoever could not renew it would be gone by now.
    deadline = time.monotonic() + 12
    while time.monotonic() < deadline:
        assert job.state == "RUNNING", job.everything()
        time.sleep(0.5)
    assert content(chat(six_nodes, url)), job.everything()


def test_scancel_drains_a_request_in_flight(submit: Submitter, six_nodes: Cluster) -> None:
    job = submit("disagg.sbatch", "--nodes=6", **DISAGG)
    url = job.wait_ready()
    answers: list[dict[str, Any]] = []
    asking = threading.Thread(target=lambda: answers.append(chat(six_nodes, url, tokens=400)))
    asking.start()
    frontends = [f"http://{n}:{int(url.rpartition(':')[2]) + 1}" for n in ("nvl72d001", "nvl72d004")]
    wait_for(lambda: any(in_flight(six_nodes, f) for f in frontends), 10, "the request is under way", 0.02)
    job.cancel()
    assert answers == []
    asking.join(40)
    assert len(answers) == 1, job.everything()
    assert answers[0]["usage"]["completion_tokens"] == 400
    assert job.wait_over() == "CANCELLED", job.everything()
    for out in sorted(job.logs.glob("*.out")):
        assert out.read_text().strip().endswith("asked to stop by SIGTERM"), out.read_text()


@pytest.mark.parametrize("again", [False, True], ids=["to its end", "scancel meanwhile"])
def test_a_job_signalled_before_its_end_drains_for_longer(
    submit: Submitter, six_nodes: Cluster, again: bool
) -> None:
    """A request that takes three times GLM47_STOP_TIMEOUT, unless there is a scancel."""
    job = submit("single_node.sbatch", GLM47_STOP_TIMEOUT="6")
    url = job.wait_ready()
    answers: list[dict[str, Any]] = []

    def question() -> None:
        with contextlib.suppress(OSError):
            answers.append(chat(six_nodes, url, tokens=1800))

    asking = threading.Thread(target=question)
    asking.start()
    wait_for(lambda: in_flight(six_nodes, url), 10, "the request is under way", 0.02)
    began = time.monotonic()
    job.cancel("--signal=TERM", "--batch")
    wait_for(lambda: "the job leaves 120 s for the stop" in job.everything(), 20, "the runner has heard")
    if again:
        job.cancel()
    state = job.wait_over(90)
    took = time.monotonic() - began
    asking.join(10)
    print(f"over after {took:.1f} s")
    # The second one cuts the request off: its frontend may then have to be killed (137), and that is said.
    assert "asked to stop" in last_line(job) and "lost" not in last_line(job), job.everything()
    assert again or "ended with 0: " in last_line(job), job.everything()
    assert state == ("CANCELLED" if again else "COMPLETED")
    assert (took < 15) is again
    tokens = [answer["usage"]["completion_tokens"] for answer in answers]
    assert again or tokens == [1800], job.everything()


def in_flight(cluster: Cluster, url: str) -> bool:
    import urllib.request

    host, _, port = url.removeprefix("http://").partition(":")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
        f"http://{cluster.address(host)}:{port}/metrics", timeout=10
    ) as answer:
        lines = answer.read().decode().splitlines()
    return any(
        line.startswith("dynamo_frontend_inflight_requests") and not line.endswith(" 0") for line in lines
    )


def test_a_node_that_never_comes_up_is_named(submit: Submitter, image: Path) -> None:
    hang = image / "hang.nvl72d003"
    hang.touch()
    try:
        job = submit("disagg.sbatch", "--nodes=6", **DISAGG, GLM47_START_TIMEOUT="8")
        assert job.wait_over(60) == "FAILED", job.everything()
    finally:
        hang.unlink()
    assert job.exit_code == "75:0", job.everything()
    assert "nvl72d003 (prefill worker 1 rank 0" in last_line(job), job.everything()


def test_a_requeued_job_serves_again(submit: Submitter, six_nodes: Cluster) -> None:
    job = submit("disagg.sbatch", "--nodes=2", **TWO_NODES)
    job.wait_ready()
    first = job.logs
    six_nodes.as_user("scontrol", "requeue", str(job.number))
    wait_for(lambda: job.state == "PENDING", 60, "pending again")
    # Slurm keeps a requeued job back for two minutes.
    run("scontrol", "update", f"JobId={job.number}", "StartTime=now", env=six_nodes.env)
    wait_for(lambda: job.logs != first and (job.logs / "url").exists(), 60, "ready a second time")
    url = (job.logs / "url").read_text().strip()
    assert content(chat(six_nodes, url)), job.everything()
    assert six_nodes.job(job.number)["Restarts"] == "1"


def test_two_jobs_share_their_nodes(submit: Submitter, six_nodes: Cluster) -> None:
    # The scripts ask for whole nodes; the command line wins.
    options = ("--nodes=2", "--nodelist=nvl72d001,nvl72d002", "--oversubscribe", "--mem=500M")
    one = submit("disagg.sbatch", *options, **TWO_NODES)
    two = submit("disagg.sbatch", *options, **TWO_NODES)
    urls = {job.wait_ready() for job in (one, two)}
    assert len(urls) == 2
    for url in urls:
        assert content(chat(six_nodes, url))


def test_what_cannot_be_placed_is_refused_at_once(submit: Submitter, six_nodes: Cluster) -> None:
    job = submit("disagg.sbatch", "--nodes=4")
    assert job.wait_over() == "FAILED"
    assert job.exit_code == "78:0", job.everything()
    assert "the job has too few nodes, 4" in last_line(job)
    with pytest.raises(RuntimeError, match=f"cannot wait for job {job.number}: it is FAILED"):
        six_nodes.as_user(str(six_nodes.base.parent / "sbatch" / "wait.sh"), str(job.number))


def test_a_layout_that_computes_wrongly_is_refused(
    submit: Submitter, old_engine: Path, six_nodes: Cluster
) -> None:
    """The original's: prefill TP 16 and decode TP 8."""
    layout = {"GLM47_PREFILL_WORKERS": "1", "GLM47_PREFILL_NODES": "4"}
    job = submit("disagg.sbatch", "--nodes=6", **layout, GLM47_ENGINE="sglang", GLM47_PYTHON=str(old_engine))
    assert job.wait_over() == "FAILED"
    assert job.exit_code == "78:0", job.everything()
    assert "cannot pair prefill and decode workers: attention-TP 16 and 8" in last_line(job), job.everything()


def test_expert_parallelism_is_refused_on_releases_that_cannot(
    submit: Submitter, old_engine: Path, six_nodes: Cluster
) -> None:
    job = submit(
        "ep.sbatch",
        "--nodes=6",
        GLM47_PREFILL_WORKERS="2",
        GLM47_PREFILL_NODES="2",
        GLM47_DECODE_NODES="2",
        GLM47_ENGINE="sglang",
        GLM47_PYTHON=str(old_engine),
    )
    assert job.wait_over() == "FAILED"
    assert job.exit_code == "78:0", job.everything()
    assert "GLM47_EP: 4" in last_line(job), job.everything()


def test_a_node_that_loses_its_power_ends_the_job_with_76(submit: Submitter, six_nodes: Cluster) -> None:
    job = submit("disagg.sbatch", "--nodes=6", **DISAGG)
    job.wait_ready()
    node = "nvl72d006"
    lost = time.monotonic()
    six_nodes.kill_node(node)
    try:
        wait_for(lambda: "ended with 76" in job.output, 40, "the job's last line")
        took = time.monotonic() - lost
        print(f"power of {node} cut; the batch script ended with the cause after {took:.1f} s")
        assert f"decode worker 0 rank 1 on {node}" in last_line(job), job.everything()
        assert took < 30
        # Slurm itself waits for its own time-out of the node.
        assert job.wait_over() == "FAILED", job.everything()
    finally:
        six_nodes.revive_node(node)
