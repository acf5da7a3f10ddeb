"""`check --all` as Slurm would start it: two machines, one task each, and the head's table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from entrypoint.commands.check.across import Report
from entrypoint.commands.check.exchange import Head, compare_clocks, send
from entrypoint.commands.check.findings import ok
from tests.node.model.files import model_directory
from tests.support.node import Node, second_node
from tests.support.runner import ROOT, free_port

JOB = 777


@pytest.fixture(scope="module")
def other() -> Iterator[Node]:
    with second_node() as node:
        yield node


def task(node: Node, index: int, tmp_path: Path, *options: str, **env: str) -> subprocess.Popen[str]:
    """The task of one node: the head's here, the other's there."""
    command = [sys.executable, "-m", "entrypoint", "check", "--all", *options]
    names = (node.here, node.address)
    return subprocess.Popen(
        command if index == 0 else node.command(*command),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={
            **os.environ, "PYTHONPATH": str(ROOT), "ROLE": "auto", "SLURM_JOB_ID": str(JOB),
            "SLURM_JOB_NODELIST": ",".join(names), "SLURM_NODEID": str(index), "SLURM_PROCID": str(index),
            "SLURMD_NODENAME": names[index], "GLM47_ENGINE": "mocker", "GLM47_PREFILL_WORKERS": "1",
            "GLM47_MODEL_PATH": str(model_directory(tmp_path / f"m{index}")),
            "GLM47_RUN_DIR": str(tmp_path / f"run{index}"), **env,
        },
    )  # fmt: skip


def test_the_head_says_how_all_nodes_are(other: Node, tmp_path: Path) -> None:
    tasks = [task(other, index, tmp_path, "--format=json") for index in (1, 0)]
    there, here = (t.communicate(timeout=60) for t in tasks)
    assert there == ("", ""), there
    found = json.loads(here[0])
    nodes = {node["node"]: node for node in found["nodes"]}
    assert set(nodes) == {other.here, other.address}
    assert nodes[other.address]["holds"] == "decode worker 0 rank 0"
    assert nodes[other.here]["clock"] == 0.0
    # The two are one machine: its clock is the same, and the answer says how far it can be trusted.
    away = nodes[other.address]
    assert abs(away["clock"]) <= away["clock_error"] < 1.0
    assert [t.returncode for t in tasks] == [0, found["exit_code"]]


def test_a_node_with_a_broken_model_comes_first(other: Node, tmp_path: Path) -> None:
    tasks = [
        task(other, 0, tmp_path),
        task(other, 1, tmp_path, GLM47_MODEL_PATH=str(tmp_path / "nowhere")),
    ]
    (text, _), there = (t.communicate(timeout=60) for t in tasks)
    assert there == ("", ""), there
    assert text.splitlines()[1].startswith(other.address), text
    assert f"leave out: --exclude={other.address}" in text
    assert tasks[0].returncode == 66 and tasks[1].returncode == 0


def test_a_node_that_says_nothing_is_named(other: Node, tmp_path: Path) -> None:
    alone = task(other, 0, tmp_path, "--wait=1")
    text, errors = alone.communicate(timeout=60)
    assert alone.returncode == 69, text + errors
    assert f"cannot ask node {other.address}: it sent nothing in 1 s" in text
    assert f"--exclude={other.address}" in text


def test_a_node_that_does_not_reach_the_head_says_what_it_found(other: Node, tmp_path: Path) -> None:
    alone = task(other, 1, tmp_path, "--wait=1")
    text, errors = alone.communicate(timeout=60)
    assert alone.returncode == 69 and "cannot reach the head" in errors and "run dir" in text


def test_outside_of_a_job_there_is_no_all(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "entrypoint", "check", "--all"], capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "ROLE": "single"}, check=False,
    )  # fmt: skip
    assert done.returncode == 78 and "run it with srun" in done.stderr


def report(node: str, **fields: Any) -> Report:
    return Report(node, (ok("GPUs", "4"),), **fields)


@pytest.fixture
def head() -> Iterator[tuple[Head, str]]:
    port = free_port()
    listening = Head("127.0.0.1", port, ["a", "b", "c"])
    yield listening, f"http://127.0.0.1:{port}"
    listening.wait(0)


def test_reports_arrive_as_they_were_sent(head: tuple[Head, str]) -> None:
    listening, url = head
    sent = report("b", gpus=4, gpu_names=("x", "y"), cliques=(("00", 7), ("00", 8)), rate=2.5e9, adapters=3)
    assert send(url, sent, 5) is None
    got = listening.reports["b"]
    assert (got.findings, got.gpu_names, got.cliques) == (sent.findings, sent.gpu_names, sent.cliques)
    assert got.clock is not None and abs(got.clock) <= got.clock_error < 1


def test_the_head_does_not_end_before_it_has_answered() -> None:
    reached, goes_on = threading.Event(), threading.Event()

    class Held(Head):
        def take(self, body: bytes) -> bool:
            taken = super().take(body)
            reached.set()
            goes_on.wait(20)
            return taken

    port = free_port()
    head = Held("127.0.0.1", port, ["a"])
    waiting = threading.Thread(target=head.wait, args=(20.0,))
    sending = threading.Thread(target=send, args=(f"http://127.0.0.1:{port}", report("a"), 5))
    for thread in (waiting, sending):
        thread.start()
    assert reached.wait(20)
    waiting.join(0.5)
    assert waiting.is_alive(), "it would have ended with an answer under way"
    goes_on.set()
    for thread in (waiting, sending):
        thread.join()


def test_a_node_reports_once_and_strangers_never(head: tuple[Head, str]) -> None:
    listening, url = head
    assert send(url, report("a", rate=1.0), 5) is None
    assert "has sent its report" in str(send(url, report("a", rate=2.0), 5))
    assert "is not expected" in str(send(url, report("x"), 5))
    assert listening.reports["a"].rate == 1.0 and set(listening.reports) == {"a"}


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"node": "a"}', b"\xff", b'{"node": "a", "findings": 3}']
)
def test_what_is_no_report_is_refused(head: tuple[Head, str], body: bytes) -> None:
    assert not head[0].take(body)
    assert head[0].reports == {}


def test_clocks_that_differ_are_seen(head: tuple[Head, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The head answers in a thread of this process: only the asking side is set forward."""
    import threading

    real, asking = time.time, threading.current_thread()
    monkeypatch.setattr(
        time, "time", lambda: real() + (30.0 if threading.current_thread() is asking else 0.0)
    )
    ahead, error = compare_clocks(head[1])
    assert abs(ahead - 30.0) <= error < 1.0
