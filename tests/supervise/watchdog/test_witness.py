"""A rank that stands still among several nodes: its leader names it. The engines are stand-ins."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from entrypoint.plan.roles.sglang import VITAL
from entrypoint.plan.types import HangWatch
from tests.support.jobs import job, node
from tests.support.plans import plan, process
from tests.support.runner import ROOT, Runner, free_port

NODES, BEHIND = 4, 2
LIMITS = HangWatch(2.0, 25.0, None, "f", "b", "a", "")


def test_its_leader_names_a_stopped_rank_of_another_node(tmp_path: Path) -> None:
    ports = [free_port() for _ in range(NODES)]
    log_dir = tmp_path / "logs"
    with ExitStack() as stack:
        runners = []
        for number, port in enumerate(ports):
            titles = (f"sglang::scheduler_TP{number}", "sglang::detokenizer")
            command = (sys.executable, "-m", "tests.support.standin_engine", "--linger", "60", *titles)
            spec = process("decode", argv=command, cwd=str(ROOT), vital=VITAL, hang=LIMITS)
            made = plan(
                spec,
                health_port=port,
                log_dir=str(log_dir),
                rank=number,
                nnodes=NODES,
                job=job(number, ports),
            )
            directory = tmp_path / node(number)
            directory.mkdir()
            runners.append(stack.enter_context(Runner.of_plan(made, directory)))
        pids = [
            int(runner.wait_for(f"decode | sglang::scheduler_TP{number} pid").split()[-1])
            for number, runner in enumerate(runners)
        ]
        for runner in runners:
            runner.wait_for("| ready after")
        assert not [*log_dir.glob("*.stacks")], "nothing is looked at while all is well"
        began = time.monotonic()
        os.kill(pids[BEHIND], signal.SIGSTOP)
        line = runners[0].wait_for(f"rank {BEHIND} of ")
        print(f"{time.monotonic() - began:.1f} s: {line}")
        assert f"rank {BEHIND} of {NODES} (node {node(BEHIND)}) is behind since " in line
        assert "it is stopped by a signal" in line and line.endswith("; the other 3 of its worker wait")
        assert runners[0].get("/status")[1]["behind"] in line
        assert len([*log_dir.glob("*.stacks")]) >= NODES - 1, "every node has looked"
        assert not any("is behind" in text for runner in runners[1:] for text in runner.lines)
