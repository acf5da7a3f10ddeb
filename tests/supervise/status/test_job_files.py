"""What the nodes leave in the job's log directory."""

from __future__ import annotations

import json
import signal
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from entrypoint.plan.types import JobPlan, Peer
from entrypoint.supervise.status import job_files
from entrypoint.supervise.status.job_files import JobFiles, job_code, record_failure, write
from tests.support.plans import plan, process
from tests.support.runner import Runner, free_port, until


def test_the_first_cause_is_kept(tmp_path: Path) -> None:
    record_failure(str(tmp_path), 76, "first\ncause")
    record_failure(str(tmp_path), 1, "second")
    cause, when = (tmp_path / "failure").read_text().splitlines()
    assert cause == "76 first cause"
    assert abs(datetime.fromisoformat(when).timestamp() - time.time()) < 60
    assert [path.name for path in tmp_path.iterdir()] == ["failure"]


def test_of_many_at_once_one_is_kept_whole(tmp_path: Path) -> None:
    threads = [
        threading.Thread(target=record_failure, args=(str(tmp_path), 76, f"{i} " + "x" * 1000))
        for i in range(32)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    text = (tmp_path / "failure").read_text()
    assert text.startswith("76 ")
    assert text.count("\n") == 2
    assert text.count("x") == 1000


def test_a_directory_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    record_failure(str(tmp_path / "missing"), 76, "cause")
    write(tmp_path / "missing" / "status.json", "{}")
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(
    ("code", "nnodes", "job"), [(137, 2, 76), (137, 1, 137), (1, 2, 1), (66, 4, 66), (76, 2, 76)]
)
def test_the_jobs_code(code: int, nnodes: int, job: int) -> None:
    assert job_code(code, nnodes) == job


def head_of(*others: Peer) -> JobPlan:
    """What the first node of job 7 plans."""
    return JobPlan(
        number=7, node="n1", what="decode worker 0 rank 0", head=True, api_url="http://n1:8000", peers=(),
        peer_timeout=9.0, stops_after={}, stop_hold=0.0, log_names={}, others=others,
    )  # fmt: skip


def written(directory: Path) -> dict[str, Any]:
    found = json.loads((directory / "status.json").read_text())
    assert isinstance(found, dict)
    return found


def test_all_nodes_are_in_the_status_with_a_clock_and_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """n2 is a runner, and ends; nobody is at n3."""
    monkeypatch.setattr(job_files, "INTERVAL", 0.01)
    monkeypatch.setattr(job_files, "OTHERS_EVERY", 0.05)
    (tmp_path / "n2").mkdir()
    logs = tmp_path / "logs"
    logs.mkdir()
    status: dict[str, Any] = {"processes": [], "state": "ready", "ready": True, "waiting_for": []}
    with Runner.of_plan(plan(process("decode")), tmp_path / "n2") as second:
        second.wait_for("runner | ready after")
        others = (
            Peer("n2", "decode worker 0 rank 1", f"http://127.0.0.1:{second.health_port}", watched=False),
            Peer("n3", "frontend", f"http://127.0.0.1:{free_port()}", watched=False),
        )
        files = JobFiles(plan(process(), log_dir=str(logs), job=head_of(*others)), lambda: status)
        files.start()
        until(lambda: (logs / "status.json").exists() and len(written(logs)["nodes"]) == 3, "all nodes")
        until(lambda: written(logs)["nodes"]["n2"].get("ready"), "n2 is ready")
        found = written(logs)
        assert found["job"].items() >= {"number": 7, "state": "running", "code": None, "reason": None}.items()
        assert abs(datetime.fromisoformat(found["time"]).timestamp() - time.time()) < 60
        assert found["state"] == "ready"  # the head's own, as before
        n2, n3 = found["nodes"]["n2"], found["nodes"]["n3"]
        assert n2["answers"] and n2["ready"] and n2["state"] == "ready", n2
        assert [(p["name"], p["state"]) for p in n2["processes"]] == [("decode", "running")]
        assert n3 == {"holds": "frontend", "at": None, "answers": False, "why": "Connection refused"}
        second.signal(signal.SIGTERM)
        assert second.wait() == 0
        until(lambda: not written(logs)["nodes"]["n2"]["answers"], "its end is seen")
        assert written(logs)["nodes"]["n2"]["processes"], "what it said last is kept"
    status |= {"state": "stopping", "exit_code": 76, "reason": 'lost "n2"'}
    files.close()
    found = written(logs)
    assert found["job"].items() >= {"state": "ended", "code": 76, "reason": 'lost "n2"'}.items()
    assert (found["state"], found["ready"], found["nodes"]["n1"]["state"]) == ("ended", False, "ended")
    assert (logs / "status.json").read_text().splitlines()[1].startswith('  "job": {'), "one line, the second"


def test_the_address_comes_once_every_node_has_come_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_files, "INTERVAL", 0.01)
    status: dict[str, object] = {"processes": [], "state": "ready", "ready": True}
    status["waiting_for"] = ["the runner on n2 (frontend): no answer"]
    files = JobFiles(plan(process(), log_dir=str(tmp_path), job=head_of()), lambda: status)
    files.start()
    until((tmp_path / "status.json").exists, "the status")
    assert not (tmp_path / "url").exists()
    status["waiting_for"] = []
    until((tmp_path / "url").exists, "the address")
    files.close()
    assert (tmp_path / "url").read_text() == "http://n1:8000\n"
