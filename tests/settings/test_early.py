"""What is told although settings cannot be read: the layers are the loader's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from entrypoint.settings import early
from entrypoint.settings.load import load
from tests.settings.helpers import env_file
from tests.support.runner import ROOT

LOG = "GLM47_TERMINATION_LOG"
LAYERS = [
    ({}, "", None),
    ({LOG: "/a"}, "", "/a"),
    ({LOG: " /a "}, f"{LOG}=/b\n", "/a"),
    ({LOG: ""}, f"{LOG}=/b\n", "/b"),
    ({}, f"export {LOG}='/b'\n", "/b"),
    ({f"{LOG}_FILE": "named"}, f"{LOG}=/b\n", "/from/file"),
    ({}, f"{LOG}_FILE=named\n", "/from/file"),
    ({"GLM47_ENV_FILE": "other"}, f"{LOG}=/b\n", "/other"),
]


@pytest.mark.parametrize(("environ", "text", "expected"), LAYERS)
def test_it_is_what_the_loader_finds(
    environ: dict[str, str], text: str, expected: str | None, tmp_path: Path
) -> None:
    (tmp_path / "named").write_text("/from/file\n")
    (tmp_path / "other").write_text(f"{LOG}=/other\n")
    if text:
        env_file(tmp_path, text)
    assert early.value(LOG, environ, tmp_path) == expected
    assert load(environ, tmp_path).settings.termination_log == (expected or "/dev/termination-log")


@pytest.mark.parametrize("environ", [{"GLM47_ENV_FILE": "/nowhere"}, {f"{LOG}_FILE": "nothing"}])
def test_what_cannot_be_read_is_no_value(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xff\xfe")
    assert early.value(LOG, environ, tmp_path) is None
    assert early.value(LOG, {}, tmp_path) is None


def run(cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GLM47_", "SLURM")) and k != "ROLE"}
    return subprocess.run(
        [sys.executable, "-m", "entrypoint", "run"],
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    "wrong",
    [
        "GLM47_TP=many",  # its value
        "GLM47_TPP=4",  # its name
        "ROLE=decode",  # found while planning: nobody says where etcd is
    ],
)
def test_the_reason_of_a_bad_setting_goes_where_env_says(wrong: str, tmp_path: Path) -> None:
    log, job_logs = tmp_path / "log", tmp_path / "job"
    job_logs.mkdir()
    env_file(tmp_path, f"{LOG}={log}\nGLM47_LOG_DIR={job_logs}\n{wrong}\n")
    done = run(tmp_path, SLURM_JOB_ID="7", SLURMD_NODENAME="node3")
    assert done.returncode == 78, done.stderr
    reason = log.read_text()
    assert reason.startswith("cannot ") and reason.strip() in done.stderr.replace("glm47-runner: ", "")
    assert (job_logs / "failure").read_text().startswith("78 node3: cannot ")
