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


def test_known_failures_are_looked_for_in_every_log_of_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.live_hints"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    shares = [float(line.split("|")[2].strip(" %")) for line in done.stdout.splitlines() if "%" in line]
    assert len(shares) == 3 and all(0 < share < 100 for share in shares), done.stdout


def test_the_night_is_played(tmp_path: Path) -> None:
    """Two of its scenes on the mocker, and the table of both."""
    command = [sys.executable, "-m", "bench.night", "--out", str(tmp_path), "--only"]
    for scene in ("no model on one node", "decode killed"):
        done = subprocess.run([*command, scene], cwd=ROOT, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
    assert " of 2 named rightly within 30 s, 0 wrongly." in done.stdout, done.stdout
    assert "not named" not in done.stdout
    assert (tmp_path / "night.md").read_text().count("| mocker |") == 2
