"""The table: environment, arguments and command against answer, health and exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from entrypoint.commands.demo.model import make_demo_model
from tests.container.harness import Container, answer, docker, running
from tests.container.table import ENDS, SERVES, WORKER, Ends, Serves


@pytest.mark.parametrize("row", ENDS, ids=lambda row: row.id)
def test_ends(image: str, row: Ends) -> None:
    """It ends with the code and the words of the table."""
    with running(image, row.env, row.args, row.command) as container:
        code = container.wait()
        output = container.logs()
        assert code == row.code, output
        assert re.search(row.output, output.strip(), re.DOTALL), output
        assert row.silent is None or row.silent not in output
        assert "Traceback" not in output


@pytest.mark.parametrize("row", SERVES, ids=lambda row: row.id)
def test_serves(image: str, network: str, request: pytest.FixtureRequest, row: Serves) -> None:
    """It turns healthy, answers, and leaves with 0 when stopped, PID 1 without a shim."""
    args = ["-p", "127.0.0.1::8000", *row.args]
    if row.cluster:
        request.getfixturevalue("servers")
        args += ["--network", network]
    with running(image, row.env, args) as container:
        container.until_healthy()
        if row.answers:
            assert answer(f"http://127.0.0.1:{container.port(8000)}").strip()
        if row.inside:
            done = container.exec(*row.inside, check=False)
            assert done.returncode == 0, done.stdout + done.stderr + container.logs()
        assert_stops(container)
        assert re.search(row.output, container.logs())


def assert_stops(container: Container, within: float = 15.0) -> None:
    took = container.stop()
    logs = container.logs()
    state = container.state()
    assert state["ExitCode"] == 0, logs
    assert not state["OOMKilled"]
    assert took < within, f"{took} s\n{logs}"


def test_frontend_alone(image: str, network: str, servers: Container) -> None:
    """A frontend of its own is healthy when its worker is there, and not before."""
    env = {**WORKER, "GLM47_NAMESPACE": "t-front"}
    args = ("--network", network)
    with running(image, {**env, "ROLE": "frontend"}, (*args, "-p", "127.0.0.1::8000")) as front:
        front.until_logged("frontend")
        probe = front.exec("glm47-runner", "probe", "ready", check=False)
        assert probe.returncode == 1 and "frontend" in probe.stdout, probe.stdout
        assert front.exec("glm47-runner", "probe", "live").returncode == 0
        with running(image, {**env, "ROLE": "aggregated"}, args) as worker:
            worker.until_healthy()
            front.until_healthy()
            assert answer(f"http://127.0.0.1:{front.port(8000)}").strip()
            assert_stops(worker)
        assert_stops(front)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model directory of the host, without bos_token_id, as the published one; nobody may write it."""
    directory = make_demo_model(tmp_path / "GLM-4.7-NVFP4")
    assert "bos_token_id" not in (directory / "generation_config.json").read_text()
    for path in (*directory.iterdir(), directory):
        path.chmod(0o555 if path.is_dir() else 0o444)
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.stat().st_mode & 0o011 != 0o011:
            parent.chmod(parent.stat().st_mode | 0o011)
        if parent == Path("/tmp"):
            break
    return directory


def test_model_is_corrected_beside_itself(image: str, model: Path) -> None:
    """A read-only model without bos_token_id is served; the directory stays as it was."""
    before = {p.name: p.read_bytes() for p in model.iterdir()}
    env = {"GLM47_ENGINE": "mocker", "ROLE": "single"}
    with running(image, env, ("-v", f"{model}:/model:ro", "-p", "127.0.0.1::8000")) as container:
        container.until_healthy()
        assert answer(f"http://127.0.0.1:{container.port(8000)}").strip()
        assert_stops(container)
    assert {p.name: p.read_bytes() for p in model.iterdir()} == before


def test_model_unreadable(image: str, model: Path) -> None:
    """A model that the container's user may not read ends the start with 66 and names what to do."""
    for path in (*model.iterdir(), model):
        path.chmod(0o000 if path.is_file() else 0o700)
    with running(
        image,
        {"GLM47_ENGINE": "mocker", "ROLE": "single"},
        (
            "-v",
            f"{model}:/model:ro",
        ),
    ) as container:
        assert container.wait() == 66
        assert re.search(r"cannot .*GLM47_MODEL_PATH=/model cannot be read by uid 1000", container.logs()), (
            container.logs()
        )


def test_image(image: str, base: str) -> None:
    """One small layer; user, labels, signal, no baked ROLE; FlashInfer alone gained files."""
    ours, theirs = (json.loads(docker("image", "inspect", i).stdout)[0] for i in (image, base))
    config = ours["Config"]
    assert config["Entrypoint"] == ["glm47-runner"] and config["Cmd"] == ["run"]
    assert config["User"] == "1000" and config["StopSignal"] == "SIGTERM"
    assert config["WorkingDir"] == theirs["Config"]["WorkingDir"]
    assert config["Env"] == theirs["Config"]["Env"]
    assert config["Labels"]["org.opencontainers.image.base.name"] == base
    assert len(ours["RootFS"]["Layers"]) == len(theirs["RootFS"]["Layers"]) + 1
    # 48.4 MB, of which rich with pygments is 14, py-spy 8 and zstandard 2.
    assert ours["Size"] - theirs["Size"] < 50e6
    listing = "find /usr/lib/python3* /usr/local/lib /home -type f -printf '%p %s %T@ %U:%G %m\\n' | sort"
    ours, theirs = (
        docker("run", "--rm", "--entrypoint", "bash", i, "-c", listing).stdout.splitlines()
        for i in (image, base)
    )
    added = [line for line in ours if "/cutlass_instantiations/" in line]
    assert len(added) > 400 and all(line.endswith(" 0:0 644") for line in added)
    assert [line for line in ours if line not in added] == theirs and len(theirs) > 1000
