"""What `demo` chooses, plans and says."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from entrypoint.commands.demo import command
from entrypoint.load import load_plan
from entrypoint.node.model import directory
from entrypoint.plan.types import Plan


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No .env of the checkout is in the way."""
    monkeypatch.chdir(tmp_path)


def planned(environ: dict[str, str], base: Path) -> Plan:
    return load_plan(command.environment({"PATH": "/usr/bin:/bin", **environ}, base), Path.cwd()).plan


def test_it_chooses_role_engine_and_model(tmp_path: Path) -> None:
    given = {"PATH": "/bin", "ROLE": "decode", "GLM47_ENGINE": "sglang"}
    chosen = command.environment(given, tmp_path / "run")
    assert chosen["ROLE"] == "single" and chosen["GLM47_ENGINE"] == "mocker"
    assert chosen["PATH"] == "/bin"
    assert chosen["GLM47_RUN_DIR"] == str(tmp_path / "run")
    assert directory.read_facts(chosen["GLM47_MODEL_PATH"]).needs_bos_fix
    assert given["ROLE"] == "decode"


def test_what_the_person_set_stays_in_whichever_layer(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("GLM47_START_TIMEOUT=7\nROLE=prefill\n")
    (tmp_path / "path").write_text("/models/mine")
    environ = {"GLM47_RUN_DIR": str(tmp_path / "mine"), "GLM47_MODEL_PATH_FILE": str(tmp_path / "path")}
    chosen = command.environment(environ, tmp_path / "base")
    assert chosen["GLM47_RUN_DIR"] == str(tmp_path / "mine")
    assert "GLM47_START_TIMEOUT" not in chosen and "GLM47_MODEL_PATH" not in chosen
    assert chosen["ROLE"] == "single"
    assert not (tmp_path / "base").exists() and not (tmp_path / "mine").exists()


def test_two_users_do_not_share_a_run_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    one = command.default_base()
    monkeypatch.setattr("os.getuid", lambda: 4711)
    assert command.default_base() != one


def test_the_plan_is_the_ordinary_one_with_the_view_as_model(tmp_path: Path) -> None:
    plan = planned({}, tmp_path / "run")
    assert {process.name for process in plan.processes} == {"nats", "frontend", "aggregated"}
    assert plan.model_source == str(tmp_path / "run/demo-model")
    assert plan.model_path == str(tmp_path / "run/model/glm-4.7")
    assert [edit.kind for edit in plan.file_edits] == ["bos_token_id"]


def test_it_says_how_to_talk_to_it(tmp_path: Path) -> None:
    environ = {
        "GLM47_HTTP_PORT": "18000",
        "GLM47_HEALTH_PORT": "19480",
        "GLM47_SERVED_MODEL_NAME": "zai-org/GLM-4.7",
    }
    text = command.ready_text(planned(environ, tmp_path / "run"))
    assert "Ctrl-C stops it." in text
    commands = [shlex.split(part.replace("\\\n", " ")) for part in text.split("\n\n")[1:3]]
    assert [words[:2] for words in commands] == [
        ["curl", "http://127.0.0.1:18000/v1/chat/completions"],
        ["curl", "http://127.0.0.1:18000/v1/completions"],
    ]
    assert all('"model": "zai-org/GLM-4.7"' in words[-1] for words in commands)
    assert "smoke http://127.0.0.1:18000\n" in text
    assert "GLM47_HEALTH_PORT=19480 " in text and "curl http://127.0.0.1:19480/readyz" in text
