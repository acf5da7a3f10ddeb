"""A second runner in the same run directory, with another model, while the first one serves."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from entrypoint.commands.demo.model import make_demo_model
from tests.support.runner import until
from tests.support.stack import chat, free_ports, run

pytestmark = pytest.mark.stack


def state(directory: Path) -> dict[str, object]:
    """Everything below `directory`: what links lead to, and what files of the runner's own hold."""
    found: dict[str, object] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.is_symlink():
            found[name] = path.readlink()
        elif path.is_file() and name.split("/")[0] not in ("etcd", "nats", "cache", "discovery"):
            found[name] = path.read_bytes()
    return found


def test_a_second_start_changes_nothing(tmp_path: Path) -> None:
    first_model = make_demo_model(tmp_path / "first")
    second_model = Path(shutil.copytree(first_model, tmp_path / "second"))
    ports = free_ports()
    settings = {"ROLE": "single", "GLM47_ENGINE": "mocker"}
    with run(tmp_path / "run", **settings, **ports, GLM47_MODEL_PATH=str(first_model)) as first:
        until(lambda: first.get("/readyz")[0] == 200, "ready", 90)
        before = state(tmp_path / "run")
        assert any(isinstance(link, Path) and first_model in link.parents for link in before.values())
        again = settings | free_ports() | {"GLM47_MODEL_PATH": str(second_model), "GLM47_LOG_FORMAT": "json"}
        second = run(tmp_path / "run", **again)
        assert second.wait(60) == 78
        assert f"another runner (pid {first.process.pid}) uses it" in second.lines[-1]
        assert state(tmp_path / "run") == before
        shutil.rmtree(second_model)
        assert first.get("/readyz")[0] == 200
        assert chat(ports["GLM47_HTTP_PORT"])[0] == 200
        first.signal(signal.SIGTERM)
        assert first.wait(60) == 0
