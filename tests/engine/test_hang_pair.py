"""Of a prefill and a decode worker one hangs."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.engine.hangs import SCHEDULER, SOON, ends_with
from tests.engine.stacks import Stack, flying
from tests.support import cpu_engine
from tests.support.cpu_engine.shim.faults import BLOCK, SPIN
from tests.support.runner import until


@pytest.mark.engine_more
@pytest.mark.parametrize(
    ("role", "fault", "words"),
    [("prefill", SPIN, "spins"), ("decode", BLOCK, r"waits in \S+")],
    ids=["prefill spins", "decode is blocked"],
)
def test_of_prefill_and_decode_the_one_that_hangs_is_named(
    tmp_path: Path, model: Path, release: str, role: str, fault: int, words: str
) -> None:
    """Both have a request and answer nothing."""
    roles = "etcd,nats,prefill,decode,frontend"
    with Stack(tmp_path / "run", model, roles, release=release, gpus=2, spins=True, **SOON) as stack:
        runner = stack.ready().runner
        main = runner.status_of(role)["pid"]
        (pid,) = [pid for pid in stack.pids(SCHEDULER) if parent_of(pid) == main]
        pages = [f"http://127.0.0.1:{int(stack.ports['GLM47_SYSTEM_PORT']) + n}/metrics" for n in (0, 1)]
        os.kill(pid, fault)
        threading.Thread(target=ask_in_vain, args=(stack,), daemon=True).start()
        until(lambda: flying(pages[role == "decode"]), "it has the request")
        reason = rf"{role} hangs: its process sglang::scheduler \(pid {pid}\) {words} with 1 req"
        ends_with(runner, 75, reason)
        other = "prefill" if role == "decode" else "decode"
        assert not any(f"{other} is not ready any more" in line for line in runner.lines)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def ask_in_vain(stack: Stack) -> None:
    try:
        cpu_engine.greedy(stack.url, ["abc"], timeout=90)
    except (OSError, cpu_engine.RefusedError):
        return
