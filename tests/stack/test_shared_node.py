"""Two workers of a one-node Slurm job, as pyxis runs them: two tasks that share /tmp, ports and a machine."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from entrypoint.commands.demo.model import make_demo_model
from entrypoint.node.job_ports import BLOCK, BLOCKS, FIRST, job_ports, shift
from tests.support.runner import ROOT, Runner, until
from tests.support.stack import COMMAND, ask, chat

pytestmark = pytest.mark.stack


def free_job() -> int:
    """A job's number whose block of ports nobody uses."""
    while True:
        number = random.randrange(BLOCKS)
        with ExitStack() as stack:
            try:
                for port in range(FIRST + BLOCK * number, FIRST + BLOCK * (number + 1)):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return number


@contextmanager
def tasks(
    directory: Path, settings: dict[str, str], count: int = 2
) -> Iterator[tuple[list[Runner], dict[str, int]]]:
    """`count` runners of the one node of a job, started at once, and the job's ports."""
    number = free_job()
    ports = job_ports(number)
    env = {
        "ROLE": "auto",
        "SLURM_JOB_ID": str(number), "SLURM_JOB_NODELIST": "localhost", "SLURMD_NODENAME": "localhost",
        "SLURM_NODEID": "0", "SLURM_STEP_TASKS_PER_NODE": str(count),
        "GLM47_RUN_DIR": str(directory / "run"), "GLM47_LOG_DIR": str(directory / "logs"),
        "GLM47_TERMINATION_LOG": str(directory / "reason"), "GLM47_DECODE_WORKERS_PER_NODE": "2",
        "DYN_TCP_RPC_HOST": "127.0.0.1", "GLM47_STOP_TIMEOUT": "30", "GLM47_START_TIMEOUT": "120",
        **settings,
    }  # fmt: skip
    (directory / "logs").mkdir()
    with ExitStack() as stack:
        runners = [
            stack.enter_context(
                Runner(
                    [COMMAND, "run"],
                    env={**env, "SLURM_LOCALID": str(slot)},
                    health_port=ports["health_port"] + shift(slot),
                    cwd=ROOT,
                )
            )
            for slot in range(count)
        ]
        yield runners, ports


@pytest.fixture
def mocker(tmp_path: Path) -> dict[str, str]:
    """Settings of the mocker with a model."""
    return {"GLM47_ENGINE": "mocker", "GLM47_MODEL_PATH": str(make_demo_model(tmp_path / "models" / "glm"))}


def both_ready(runners: list[Runner]) -> None:
    until(lambda: all(runner.get("/readyz")[0] == 200 for runner in runners), "ready", 90)


def test_both_answer_share_the_models_view_and_stop(tmp_path: Path, mocker: dict[str, str]) -> None:
    with tasks(tmp_path, mocker) as (runners, ports):
        both_ready(runners)
        assert chat(ports["http_port"])[0] == 200
        _, health = ask(ports["http_port"], "/health")
        assert len([i for i in health["instances"] if i["endpoint"] == "generate"]) == 2
        assert [runner.get("/status")[1]["node"] for runner in runners] == ["localhost", "localhost/1"]
        run = tmp_path / "run"
        assert (run / "model").is_dir() and not (run / "worker-1" / "model").exists()
        assert (run / "runner.lock").exists() and (run / "worker-1" / "runner.lock").exists()
        assert run.stat().st_mode & 0o077 == 0, "whoever made it"
        names = {path.name for path in (tmp_path / "logs").iterdir()}
        assert names >= {f"localhost_aggregated_w{i}.log" for i in (0, 1)} | {"localhost_runner_w1.log"}
        for runner in runners:
            runner.signal(signal.SIGTERM)
        assert [runner.wait(60) for runner in runners] == [0, 0], runners[0].text() + runners[1].text()


def test_one_dies_and_the_other_says_which(tmp_path: Path, mocker: dict[str, str]) -> None:
    with tasks(tmp_path, mocker) as (runners, _):
        both_ready(runners)
        os.kill(runners[1].status_of("aggregated")["pid"], signal.SIGKILL)
        assert runners[1].wait(60) == 137
        assert runners[0].wait(60) == 76
        assert "lost aggregated worker 1 rank 0 on localhost/1: " in runners[0].lines[-1]
        failure = (tmp_path / "logs" / "failure").read_text()
        assert failure.startswith("137 aggregated worker 1 rank 0 on localhost/1: ")
    told = subprocess.run([COMMAND, "diagnose", str(tmp_path / "logs")], capture_output=True, text=True)
    assert told.stdout.startswith("first cause: localhost/1 aggregated: ended: killed by SIGKILL (137)")


def test_a_task_too_many_leaves_with_0_and_one_too_few_is_refused(
    tmp_path: Path, mocker: dict[str, str]
) -> None:
    one = {**mocker, "GLM47_DECODE_WORKERS": "1"}
    with tasks(tmp_path, one) as (runners, ports):
        assert runners[1].wait(60) == 0
        assert "localhost has 1 of up to 2 workers" in runners[1].lines[-1]
        until(lambda: runners[0].get("/readyz")[0] == 200, "ready", 90)
        assert chat(ports["http_port"])[0] == 200
    (tmp_path / "again").mkdir()
    with tasks(tmp_path / "again", mocker, 1) as (runners, _):
        assert runners[0].wait(60) == 78
        assert "use srun --ntasks-per-node=2" in runners[0].lines[-1]
