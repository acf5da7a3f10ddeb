"""A person's arguments before the installed Dynamo's own parser: what it refuses is not started."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from entrypoint.commands.demo.model import make_demo_model
from tests.support.stack import COMMAND, ENGINE, free_ports, run

pytestmark = pytest.mark.stack
MOCKER = {"ROLE": "single", "GLM47_ENGINE": "mocker", "GLM47_MODEL_PATH": "model"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    directory = tmp_path_factory.mktemp("arguments")
    make_demo_model(directory / "model")
    return {**MOCKER, "GLM47_MODEL_PATH": str(directory / "model"), "GLM47_PYTHON": str(ENGINE / "python")}


BAD = {
    "GLM47_EXTRA_ARGS": "--num-gpu-blocks-overide 2048 \\\n  --block-size many",
    "GLM47_FRONTEND_EXTRA_ARGS": "--router-session-affinity-ttl-secs 60 --store-kw etcd",
}
SAYS = "Dynamo 0.8.1 has no such option"
LINES = (
    f"cannot use GLM47_EXTRA_ARGS: --num-gpu-blocks-overide: {SAYS}: use the nearest name, "
    "--num-gpu-blocks-override",
    "cannot use GLM47_EXTRA_ARGS --block-size: many: Dynamo 0.8.1 says `invalid int value: 'many'`: "
    "correct it",
    f"cannot use GLM47_FRONTEND_EXTRA_ARGS: --router-session-affinity-ttl-secs: {SAYS} (Dynamo 1.3.1 and "
    "newer do): leave it out, or use such a release",
    f"cannot use GLM47_FRONTEND_EXTRA_ARGS: --store-kw: {SAYS}: use the nearest name, --store-kv",
)


def test_run_ends_with_78_before_anything_is_started(place: dict[str, str], tmp_path: Path) -> None:
    with run(tmp_path / "run", **place, **BAD, **free_ports()) as runner:
        assert runner.wait() == 78
    assert sorted(runner.lines) == sorted(f"glm47-runner: {line}" for line in LINES)
    assert sorted((tmp_path / "run.reason").read_text().splitlines()) == sorted(LINES)


def test_check_says_the_same(place: dict[str, str], tmp_path: Path) -> None:
    env = {**place, **BAD, **free_ports(), "GLM47_RUN_DIR": str(tmp_path)}
    done = subprocess.run([COMMAND, "check", "--format", "json"], env=env, capture_output=True, text=True)
    findings = json.loads(done.stdout)
    assert sorted(f["text"] for f in findings if f["what"] == "arguments") == sorted(LINES)
    assert done.returncode == 78


def test_check_names_what_an_abbreviation_is_taken_for(place: dict[str, str], tmp_path: Path) -> None:
    env = {**place, **free_ports(), "GLM47_RUN_DIR": str(tmp_path), "GLM47_EXTRA_ARGS": "--block 32"}
    done = subprocess.run([COMMAND, "check", "--format", "json"], env=env, capture_output=True, text=True)
    said = [(f["state"], f["text"]) for f in json.loads(done.stdout) if f["what"] == "arguments"]
    assert said == [
        ("warning", "GLM47_EXTRA_ARGS: --block is taken for --block-size"),
        ("ok", "their own parsers take the command lines of aggregated, frontend"),
    ]


def test_a_parser_that_does_not_answer_keeps_nobody(place: dict[str, str], tmp_path: Path) -> None:
    """An interpreter that hangs when it is asked: `run` goes on after five seconds, and says so."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(
        f'#!/bin/sh\nif [ "$1" = -c ]; then exec sleep 600; fi\nexec {ENGINE / "python"} "$@"\n'
    )
    python.chmod(0o755)
    (tmp_path / "lib").symlink_to(ENGINE.parent / "lib")
    settings = {**place, "GLM47_PYTHON": str(python), "GLM47_EXTRA_ARGS": "--block-size 32"}
    settings["GLM47_NATS_BIN"] = str(ENGINE / "nats-server")
    with run(tmp_path / "run", **settings, **free_ports()) as runner:
        runner.wait_for("dynamo.mocker was not asked about its command line: it did not answer in time")
        runner.wait_for("aggregated started with pid")
