"""`glm47-runner patch …` as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.prepare.patches import sample

ROOT = Path(__file__).resolve().parents[3]


def patch(*arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("GLM47_")}
    return subprocess.run(
        [sys.executable, "-m", "entrypoint", "patch", *map(str, arguments)],
        cwd=ROOT, env={**env, **environ}, capture_output=True, text=True,
    )  # fmt: skip


def states(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stderr
    return [edit["state"] for edit in json.loads(done.stdout)["edits"]]


def test_check_apply_check_revert(source_dir: Path) -> None:
    source = ("--source", source_dir, "--format", "json")
    assert states(patch("check", *source)) == ["needed", "needed"]
    assert states(patch("apply", *source)) == ["applied", "applied"]
    assert states(patch("check", *source)) == ["applied", "applied"]
    assert json.loads(patch("apply", *source).stdout)["changed"] == []
    assert states(patch("check", *source, GLM47_MODELOPT_PATCH="assert")) == ["needed", "applied"]
    assert states(patch("revert", *source)) == ["not needed", "not needed"]
    assert sample.source(source_dir).read_text() == sample.MODELOPT


def test_text_names_version_file_and_digest(source_dir: Path) -> None:
    import hashlib

    line = patch("check", "--source", source_dir).stdout.splitlines()[0]
    digest = hashlib.sha256(sample.MODELOPT.encode()).hexdigest()
    assert line.startswith("modelopt: needed (mode pad): ")
    assert str(sample.source(source_dir)) in line and "sglang 0.5.6.post2" in line and digest[:12] in line


def test_overlay_says_what_the_engine_needs(source_dir: Path, tmp_path: Path) -> None:
    done = patch("apply", "--source", source_dir, "--where", "overlay", "--run-dir", tmp_path / "run")
    assert done.returncode == 0
    assert f"engine processes need PYTHONPATH={tmp_path}/run/overlay/" in done.stdout


@pytest.mark.parametrize("verb", ["check", "apply", "revert"])
def test_bad_source_is_one_line_and_73(verb: str, tmp_path: Path) -> None:
    done = patch(verb, "--source", tmp_path / "nothing")
    assert done.returncode == 73
    assert len(done.stderr.splitlines()) == 1 and "no sglang package in it" in done.stderr


def test_unknown_source_is_shown_and_73(tmp_path: Path) -> None:
    sample.write(tmp_path, text="x = 1\n")
    done = patch("check", "--source", tmp_path)
    assert done.returncode == 73 and done.stdout.startswith("modelopt: not recognised (expected one class")
    assert patch("check", "--source", tmp_path, "--mode", "off").returncode == 0
    done = patch("apply", "--source", tmp_path)
    assert done.returncode == 73 and len(done.stderr.splitlines()) == 1


def test_the_interpreters_own_package(tmp_path: Path) -> None:
    place = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    python = str(place / "bin" / "python")
    done = patch("check", GLM47_PYTHON=python)
    assert done.returncode == 73 and "it cannot import sglang" in done.stderr
    site = next(place.glob("lib/python3*/site-packages"))
    sample.write(site)
    assert states(patch("check", "--format", "json", GLM47_PYTHON=python)) == ["needed", "needed"]


def test_list(source_dir: Path) -> None:
    assert [line.partition(":")[0] for line in patch("list").stdout.splitlines()] == [
        "modelopt",
        "glm4_moe_routing",
    ]


def test_it_reads_the_settings_that_plan_reads(source_dir: Path, tmp_path: Path) -> None:
    given, named = tmp_path / "given", tmp_path / "run-dir"
    named.write_text(f"{tmp_path}/run\n")
    given.write_text(
        f"GLM47_MODELOPT_PATCH=assert\nGLM47_PATCH_MODE=overlay\nGLM47_RUN_DIR_FILE={named}\n"
        "GLM47_PYTHON=/nowhere/python\n"
    )
    env = {"GLM47_ENV_FILE": str(given)}
    done = patch("apply", "--source", source_dir, "--format", "json", **env)
    assert {edit["mode"] for edit in json.loads(done.stdout)["edits"]} >= {"assert"}
    assert json.loads(done.stdout)["where"] == "overlay"
    assert json.loads(done.stdout)["env"]["PYTHONPATH"].startswith(f"{tmp_path}/run/overlay/")
    assert sample.source(source_dir).read_text() == sample.MODELOPT
    # An option says more than any setting, and the interpreter is GLM47_PYTHON's.
    assert "(mode pad)" in patch("check", "--source", source_dir, "--mode", "pad", **env).stdout
    assert "GLM47_PYTHON: /nowhere/python" in patch("check", **env).stderr


def test_a_bad_setting_is_78_as_for_plan(source_dir: Path) -> None:
    done = patch("check", "--source", source_dir, GLM47_MODELOPT_PATCH="padd")
    assert done.returncode == 78
    assert done.stderr.startswith("glm47-runner: cannot use GLM47_MODELOPT_PATCH: 'padd' (environment): ")
