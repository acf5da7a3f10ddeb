"""A rank that stands still: named by its leader with its stack, while the others only wait for it."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from entrypoint.commands.cli import cli
from entrypoint.commands.diagnose import logs, report
from tests.engine.hangs import FAULTS, SCHEDULER, ends_with
from tests.engine.machines import cable
from tests.engine.stacks import START, Stack, asking
from tests.support.cpu_engine.shim.faults import BLOCK
from tests.support.node import Node
from tests.support.stack import free_ports

NAMED = 30.0
"""Seconds from the fault within which the rank is named, with the real limits: 14 on two free cores."""


def first_cause_of(stack: Stack) -> dict[str, Any]:
    """What `diagnose` says of a living deployment."""
    host = stack.url.split("/")[2].split(":")[0]
    asked = ["diagnose", f"{host}:{stack.runner.health_port}", "--json"]
    done = CliRunner().invoke(cli, asked)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.output)["first_cause"]
    print(json.dumps(found))
    return found


@pytest.mark.engine_more
def test_a_stopped_follower_is_named_by_its_leader_with_its_stack(
    other: Node, model: Path, release: str, tmp_path: Path
) -> None:
    """TP 2 over two machines, as two nodes of a Slurm job, whose runners ask each other."""
    log_dir = tmp_path / "logs"
    common = free_ports() | {
        "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": f"{other.here},{other.address}", "GLM47_TP": "2",
        "GLM47_DECODE_NODES": "2", "GLM47_LOG_DIR": str(log_dir),
    }  # fmt: skip
    near = common | cable(other.interface_here) | {"SLURMD_NODENAME": other.here, "SLURM_NODEID": "0"}
    far = common | cable(other.interface) | {"SLURMD_NODENAME": other.address, "SLURM_NODEID": "1"}
    leader = Stack(tmp_path / "here", model, "auto", release=release, **near)
    follower = Stack(tmp_path / "there", model, "auto", release=release, node=other, **far)
    with leader, follower:
        follower.ready()
        leader.ready()
        (pid,) = follower.pids(SCHEDULER)
        with asking(leader):
            os.kill(pid, signal.SIGSTOP)
            began = time.monotonic()
            line = leader.runner.wait_for(f"rank 1 of 2 (node {other.address}) is behind since", START)
            took = time.monotonic() - began
            print(f"named after {took:.1f} s: {line}")
            assert took < NAMED
            assert "is stopped by a signal: " in line and "scheduler.py:" in line, line
            assert line.endswith("; the other 1 of its worker waits")
            (stacks,) = log_dir.glob(f"{other.address}_*.stacks")
            assert "do_signal_stop" in stacks.read_text() and "MainThread" in stacks.read_text()
            assert leader.runner.get("/status")[1]["behind"] in line
            # Asked while it hangs, the leader tells of both.
            living = first_cause_of(leader)
            assert (living["node"], living["process"]) == (other.address, "decode"), living
            assert living["kind"] in ("stopped", "behind")
            ends_with(follower.runner, 75, "is stopped by a signal")
            leader.runner.wait(START)
    found = logs.diagnose(log_dir)
    print(report.text(found))
    first = found.judgement.first
    assert first is not None and (first.node, first.kind, first.rank) == (other.address, "stopped", "TP1")


@pytest.mark.engine_more
def test_a_blocked_rank_is_named_with_its_stack_where_nobody_may_look(
    model: Path, release: str, tmp_path: Path
) -> None:
    """TP 2 in one container, in which py-spy is forbidden: the schedulers tell it themselves."""
    forbids = (sys.executable, "-m", "tests.support.no_ptrace")
    settings = FAULTS | {
        "CPU_ENGINE_KEEPS_OUT": "1",
        "GLM47_TP": "2",
        "GLM47_LOG_DIR": str(tmp_path / "logs"),
    }
    stack = Stack(
        tmp_path / "run", model, "single", release=release, gpus=2, through=forbids, spins=True, **settings
    )
    with stack:
        runner = stack.ready().runner
        (pid,) = stack.pids("sglang::scheduler_TP1")
        with asking(stack):
            os.kill(pid, BLOCK)
            began = time.monotonic()
            line = runner.wait_for("rank 1 of 2 is behind since", START)
            print(f"named after {time.monotonic() - began:.1f} s: {line}")
            assert "block (faults.py:" in line and line.endswith("; the other 1 of its worker waits"), line
            (file,) = (tmp_path / "logs").glob("*.stacks")
            text = file.read_text()
            print(text[:6000])
            assert text.count("ermission") >= 4 and text.count("; it told them itself") >= 4
            living = first_cause_of(stack)
            assert living["kind"] == "behind" and "rank 1 of 2 is behind" in living["what"], living
            assert "sglang::detokenizer" in text and "all_reduce" in text
            ends_with(runner, 75, "hangs")
