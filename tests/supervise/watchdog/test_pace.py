"""A node that is slower than the others: the leader of its worker, or the head, names it. By stand-ins."""

from __future__ import annotations

import os
import sys
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from entrypoint.plan.types import LoadedProbe
from entrypoint.supervise.lifecycle.slow import LATE
from tests.support.jobs import job, node
from tests.support.plans import plan, process
from tests.support.runner import Runner, free_port, until

NODES, SLOW = 4, 2
CORE = max(os.sched_getaffinity(0))
ENGINE = """
import os, subprocess, sys, time
rank, seconds, hogs = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
say = lambda line: print(line, flush=True)
if hogs:
    os.sched_setaffinity(0, {int(sys.argv[4])})
    spin = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(hogs)]
say("Init torch distributed begin.")
say("Load weight begin. avail mem=1 GB")
end = time.monotonic() + seconds
while time.monotonic() < end:
    hogs or time.sleep(0.1)
say("Load weight end. type=Glm4MoeForCausalLM")
for each in spin if hogs else ():
    each.kill()
say("Non-leader node detected (node_rank=1)")
time.sleep(600)
"""


def place(number: int, ports: list[int], workers: bool) -> dict[str, Any]:
    """Of a rank of one worker, or of one of several `workers` of a node each."""
    made = job(number, ports)
    if not workers:
        return {"job": made, "rank": number, "nnodes": NODES}
    peers = tuple(replace(p, what=f"decode worker {p.name[1:]} rank 0") for p in made.peers)
    return {"job": replace(made, what=f"decode worker {number} rank 0", peers=peers)}


@pytest.mark.parametrize("workers", (False, True), ids=("ranks of one worker", "workers of a node each"))
def test_it_is_named_with_what_holds_it_up(tmp_path: Path, workers: bool) -> None:
    logs = str(tmp_path / "logs")
    ports = [free_port() for _ in range(NODES)]
    with ExitStack() as stack:
        runners = []
        for number, port in enumerate(ports):
            slow = number == SLOW
            words = (str(number), str(LATE + 18) if slow else "1", "3" if slow else "0", str(CORE))
            command = (sys.executable, "-c", ENGINE, *words)
            spec = process("decode", argv=command, ready=LoadedProbe(), log_dialect="sglang")
            made = plan(spec, health_port=port, **place(number, ports, workers), log_dir=logs)
            directory = tmp_path / node(number)
            directory.mkdir()
            runners.append(stack.enter_context(Runner.of_plan(made, directory)))
        leader, began = runners[0], time.monotonic()
        line = leader.wait_for(" is slow since ", 60)
        print(f"{time.monotonic() - began:.1f} s: {line}")
        assert f"decode: a rank (node {node(SLOW)}) is slow since " in line
        assert ": loading weights for " in line and "the other 3 took 1." in line
        assert workers != (" s and wait: " in line)
        assert "of the time for a processor core" in line
        (told,) = leader.get("/status")[1]["slow"]
        assert (told["process"], told["node"], told["step"]) == ("decode", node(SLOW), "weights")
        with urllib.request.urlopen(f"http://127.0.0.1:{leader.health_port}/metrics", timeout=5) as page:
            series = f'glm47_slow{{node="{node(SLOW)}",process="decode",step="weights"}} 1.0'
            assert series in page.read().decode()
        assert leader.get("/view")[1]["status"]["slow"] == [told]
        over = leader.wait_for("has caught up", 60)
        assert f"decode: node {node(SLOW)} has caught up: loading weights took it " in over
        until(lambda: leader.get("/status")[1]["slow"] == [], "nobody is slow any more")
        lines = [line for runner in runners for line in runner.lines]
        assert sum(" is slow since " in line for line in lines) == 1, "told once, by the leader alone"
