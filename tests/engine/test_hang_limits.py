"""A worker that hangs, with the real limits: 10 s to not ready, 40 s to the end.

The runner counts these seconds in looks: on a busy machine they take longer.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.engine.hangs import END, FAULTS, SCHEDULER, ends_with
from tests.engine.stacks import Stack, asking
from tests.support.cpu_engine.shim.faults import SPIN
from tests.support.runner import free_port, until


def test_a_worker_that_spins_and_the_frontend_of_another_container(
    tmp_path: Path, model: Path, release: str
) -> None:
    """With the real limits. The frontend asks the runner beside its worker: on 127.0.0.2, the same port."""
    both = FAULTS | {"GLM47_DISCOVERY": "file", "DYN_FILE_KV": str(tmp_path / "store")}
    both["GLM47_HEALTH_PORT"] = str(free_port())
    far = dict.fromkeys(("GLM47_HEALTH_HOST", "SGLANG_HOST_IP", "DYN_TCP_RPC_HOST"), "127.0.0.2")
    near = dict.fromkeys(("GLM47_HEALTH_HOST", "DYN_TCP_RPC_HOST"), "127.0.0.1")
    worker = Stack(tmp_path / "worker", model, "aggregated", release=release, **both, **far)
    with worker, Stack(tmp_path / "frontend", model, "frontend", release=release, **both, **near) as front:
        asked = front.ready().runner
        (pid,) = worker.pids(SCHEDULER)
        with asking(front, metrics_of=worker):
            began = time.monotonic()
            os.kill(pid, SPIN)
            worker.runner.wait_for_match(r"aggregated is not ready any more: .* for 1[0-3] s", END)
            print(f"the worker is not ready after {time.monotonic() - began:.1f} s")
            until(lambda: asked.get("/readyz")[0] == 503, "the frontend is not ready", END)
            print(f"the frontend is not ready after {time.monotonic() - began:.1f} s")
            why = asked.status_of("frontend")["why"]
            assert why.startswith("none of its backend workers is ready: 127.0.0.2: its process"), why
            reason = r"aggregated hangs: its process sglang::scheduler \(pid \d+\) spins with 1 request"
            ends_with(worker.runner, 75, reason + ".* for 4[0-3] s")
            print(f"the worker's container is over after {time.monotonic() - began:.1f} s")

        def delisted() -> bool:
            code, body = asked.get("/readyz")
            assert code == 503, "ready without a worker"
            return "0 of 1 backend" in str(body)

        until(delisted, "the worker is not listed any more", 30)
