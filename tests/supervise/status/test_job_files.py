"""What the nodes leave in the job's log directory."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from entrypoint.plan.types import JobPlan
from entrypoint.supervise.status import job_files
from entrypoint.supervise.status.job_files import JobFiles, job_code, record_failure, write
from tests.support.plans import plan, process
from tests.support.runner import until


def test_the_first_cause_is_kept(tmp_path: Path) -> None:
    record_failure(str(tmp_path), 76, "first\ncause")
    record_failure(str(tmp_path), 1, "second")
    assert (tmp_path / "failure").read_text() == "76 first cause\n"
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
    assert text.count("\n") == 1
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


def test_the_address_comes_once_every_node_has_come_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_files, "INTERVAL", 0.01)
    job = JobPlan(
        number=7, node="n1", what="decode worker 0 rank 0", head=True, api_url="http://n1:8000", peers=(),
        peer_timeout=9.0, stops_after={}, stop_hold=0.0, log_names={},
    )  # fmt: skip
    status: dict[str, object] = {"processes": [], "state": "ready", "ready": True}
    status["waiting_for"] = ["the runner on n2 (frontend): no answer"]
    files = JobFiles(plan(process(), log_dir=str(tmp_path), job=job), lambda: status)
    files.start()
    until((tmp_path / "status.json").exists, "the status")
    assert not (tmp_path / "url").exists()
    status["waiting_for"] = []
    until((tmp_path / "url").exists, "the address")
    files.close()
    assert (tmp_path / "url").read_text() == "http://n1:8000\n"
