"""Both layouts with the mocker, as `docker compose up` brings them up; the restart of one of two workers."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.container.compose import Project, command, project
from tests.container.conftest import unavailable
from tests.container.harness import ROOT, answer, docker, wait_for
from tests.container.load import Load

DISAGG = "compose/compose.disagg.yaml"
DECODE2 = "tests/container/compose.decode2.yaml"


@pytest.fixture(autouse=True)
def compose(engine: str) -> None:
    if command() is None:
        unavailable("no docker compose and no docker-compose")


def assert_stops(made: Project) -> None:
    """Everything leaves with 0, well before Compose would kill it."""
    names = made.run("ps", "-q").stdout.split()
    began = time.monotonic()
    made.run("stop")
    took = time.monotonic() - began
    states = [json.loads(docker("inspect", name).stdout)[0] for name in names]
    codes = {s["Config"]["Labels"]["com.docker.compose.service"]: s["State"]["ExitCode"] for s in states}
    bad = [service for service, code in codes.items() if code]
    if bad:
        print(made.run("logs", "--no-color", *bad, "frontend").stdout)
    assert not bad, codes
    assert took < 40


def test_one_node(image: str) -> None:
    """`docker compose up`, no file named."""
    with project(image) as made:
        made.run("up", "--detach", "--wait")
        assert answer(made.url("single")).strip()
        assert_stops(made)


def test_disaggregated(image: str) -> None:
    """Five services of one image; the frontend is healthy once both workers are registered."""
    with project(image, DISAGG) as made:
        made.run("up", "--detach", "--wait")
        assert answer(made.url()).strip()
        services = made.run("ps", "--services").stdout.split()
        assert sorted(services) == ["decode", "etcd", "frontend", "nats", "prefill"]
        assert_stops(made)


def test_restart_of_one_of_two(image: str, record_property: Callable[[str, object], None]) -> None:
    """No new request fails and none in flight is lost while one of two decode workers is replaced."""
    with project(image, DISAGG, DECODE2) as made:
        made.run("up", "--detach", "--wait")
        with Load(made.url()) as load:
            wait_for(lambda: len(load.requests) >= 12, 60, "requests before the restart")
            began = time.monotonic()
            made.run("up", "--detach", "--force-recreate", "--no-deps", "--wait", "decode")
            count = len(load.requests)
            wait_for(lambda: len(load.requests) >= count + 12, 60, "requests after the restart")
        in_flight = [r for r in load.requests if r.began < began < r.ended]
        new = [r for r in load.requests if r.began >= began]
        failed = [r.failure for r in load.requests if r.failure]
        for name, value in (("in flight", len(in_flight)), ("new", len(new)), ("failed", len(failed))):
            record_property(name, value)
        assert len(in_flight) >= 3 and len(new) >= 20
        assert not failed, failed


# -- what the mocker does not show


def test_gpu_layout(tmp_path: Path) -> None:
    """The same files on GPUs: model read-only, GPUs, host IPC, locked memory, time to load."""
    with project("glm47-runner", GLM47_ENGINE="sglang", MODEL_DIR=str(tmp_path)) as made:
        single = json.loads(made.run("config", "--format", "json").stdout)["services"]["single"]
    mounts = {v["target"]: v for v in single["volumes"]}
    assert mounts["/model"]["read_only"] and mounts["/model"]["source"] == str(tmp_path)
    assert mounts["/var/cache/glm47-runner"]["type"] == "volume"
    assert single["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert single["ipc"] == "host" and single["ulimits"]["memlock"] == -1
    assert single["healthcheck"]["start_period"] == "1h0m0s"
    assert single["stop_grace_period"] == "1m15s"


def test_gpu_layout_without_a_model() -> None:
    """The variable that is missing is named."""
    with project("glm47-runner", GLM47_ENGINE="sglang") as made:
        done = made.run("config", check=False)
    assert done.returncode and "MODEL_DIR" in done.stderr


def test_settings_of_the_env_file_reach_the_containers(tmp_path: Path) -> None:
    """GLM47_* and NCCL_* of .env go to every service."""
    for name in ("compose.yaml", "compose"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    example = (ROOT / ".env.example").read_text()
    (tmp_path / ".env").write_text(f"{example}\nGLM47_LOG_FORMAT=json\nNCCL_DEBUG=INFO\nAPI_PORT=18123\n")
    for layout in ({}, {"COMPOSE_FILE": DISAGG}):
        with project("x", GLM47_ENGINE="mocker") as made:
            made.cwd = tmp_path
            made.env = {"GLM47_ENGINE": "mocker", **layout}
            services = json.loads(made.run("config", "--format", "json").stdout)["services"]
        for service in services.values():
            assert service["environment"]["GLM47_LOG_FORMAT"] == "json"
            assert service["environment"]["NCCL_DEBUG"] == "INFO"
        ports = [s["ports"][0]["published"] for s in services.values() if s.get("ports")]
        assert ports == ["18123"]
