"""What the runner says of a worker that ended, with a real child that writes what an engine would."""

from __future__ import annotations

from pathlib import Path

import pytest

from entrypoint.supervise.failures.known import KNOWN_FAILURES
from tests.supervise.failures.signatures import LINES
from tests.support.plans import plan, process
from tests.support.runner import Runner

KNOWN = {known.key: known for known in KNOWN_FAILURES}
TRACEBACK = """\
2026-11-25T14:04:24.513153Z ERROR scheduler.run_scheduler_process: Scheduler hit an exception: Traceback (most recent call last):
  File "/sgl/scheduler.py", line 4227, in run_scheduler_process
    scheduler.run_event_loop()
RuntimeError: No plugins available for NIXL at all

2026-11-25T14:04:24.513904Z ERROR tokenizer_manager: SIGQUIT received. signum=None, frame=None. It usually means one child failed.
2026-11-25T14:04:24.514210Z  INFO common.kill_process_tree: kill_process_tree called: parent_pid=1009, include_parent=True
"""  # noqa: E501


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("gpu01:2:3 [0] NCCL INFO NVLS multicast support is available on dev 0\n", ""),
        (TRACEBACK, " (its last exception: RuntimeError: No plugins available for NIXL at all)"),
        (f"{LINES['gpu-memory'][0]}\n", f" ({KNOWN['gpu-memory']})"),
        (f"{LINES['mnnvl-imex'][0]}\n", f" (perhaps {KNOWN['mnnvl-imex']})"),
    ],
    ids=["nothing", "quoted", "known", "perhaps"],
)
def test_the_reason_of_a_killed_worker(log: str, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text(log)
    termination = tmp_path / "termination-log"
    worker = process("decode", argv=("sh", "-c", f"cat {file}; kill -9 $$"))
    with Runner.of_plan(plan(worker, termination_log=str(termination)), tmp_path) as runner:
        assert runner.wait() == 137
    assert runner.lines[-1] == f"runner | decode ended: killed by SIGKILL (137){reason}"
    assert termination.read_text() == f"decode ended: killed by SIGKILL (137){reason}\n"
