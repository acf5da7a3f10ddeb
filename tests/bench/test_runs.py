"""Every benchmark can be run: once, with little of everything. A busy machine's figures judge nobody."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.runner import ROOT


def test_make_bench_measures_everything(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    few = ["--systems", "glm47-runner", "--rounds", "1", "--lines", "2000", "--requests", "3"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.supervision", *few, "--json", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    found = json.loads(out.read_text())
    for row in found["rows"]:
        assert None not in row["samples"]["glm47-runner"], row
    assert "dynamo.frontend" in found["request_path"]["listener"]
    assert len(found["request_path"]["runner"]) == 3


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_output_code_is_measured_alone(form: str) -> None:
    few = ["--lines", "2000", "--rounds", "1", "--format", form]
    done = subprocess.run(
        [sys.executable, "bench/log_forwarding.py", *few],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("lost 0  joined or foreign 0") == 8, done.stdout
