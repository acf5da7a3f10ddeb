"""Layers, _FILE, .env, and the words of every error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from entrypoint.settings.load import load
from entrypoint.settings.origin import REDACTED, Origin
from entrypoint.settings.schema import Settings
from tests.settings.helpers import env_file, problems


def test_nothing_set_is_all_defaults(tmp_path: Path) -> None:
    loaded = load({}, tmp_path)
    assert loaded.settings == Settings()
    assert set(loaded.origins) >= {"ROLE", "GLM47_TP", "GLM47_API_KEY", "GLM47_ENV_FILE"}
    assert {origin.origin for origin in loaded.origins.values()} == {"default"}
    assert loaded.origins["GLM47_HTTP_PORT"] == Origin(8000, "default")
    assert loaded.native == loaded.env_file_native == {}


def test_the_process_environment_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLM47_TP", "4")
    monkeypatch.setenv("ROLE", "nats")
    assert load({}, tmp_path).settings == Settings() == Settings(tp=None, role="auto")


def test_settings_can_be_compared_and_hashed() -> None:
    assert hash(Settings(tp=4, api_key="k")) == hash(Settings(tp=4, api_key="k"))
    assert Settings(tp=4) != Settings(tp=8)


@pytest.mark.parametrize(
    ("environment", "file", "dotenv", "value", "origin"),
    [
        ("1", None, "3", 1, "environment"),
        (None, "2", "3", 2, "file {cwd}/tp"),
        (None, None, "3", 3, ".env {cwd}/.env"),
        ("", "2", "3", 2, "file {cwd}/tp"),
        ("", None, "3", 3, ".env {cwd}/.env"),
        ("", None, "", None, "default"),
        (None, None, None, None, "default"),
    ],
)
def test_the_first_layer_that_has_a_value_wins(
    tmp_path: Path, environment: str | None, file: str | None, dotenv: str | None, value: object, origin: str
) -> None:
    environ = {}
    if environment is not None:
        environ["GLM47_TP"] = environment
    if file is not None:
        (tmp_path / "tp").write_text(file + "\n")
        environ["GLM47_TP_FILE"] = "tp"
    if dotenv is not None:
        env_file(tmp_path, f"GLM47_TP={dotenv}\n")
    loaded = load(environ, tmp_path)
    assert loaded.settings.tp == value
    assert loaded.origins["GLM47_TP"] == Origin(value, origin.format(cwd=tmp_path))


def test_file_variable_in_env_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret-value")
    env_file(tmp_path, "GLM47_API_KEY_FILE=key\nGLM47_LOG_FORMAT=json\n")
    loaded = load({}, tmp_path)
    assert loaded.settings.api_key is not None
    assert loaded.settings.api_key.get_secret_value() == "s3cret-value"
    assert loaded.origins["GLM47_API_KEY"] == Origin(REDACTED, f"file {tmp_path}/key")
    assert load({"GLM47_API_KEY": "other-value"}, tmp_path).origins["GLM47_API_KEY"].origin == "environment"


def test_named_env_file(tmp_path: Path) -> None:
    env_file(tmp_path, "GLM47_TP=2\n")
    (tmp_path / "prod.env").write_text("GLM47_TP=8\nROLE=nats\n")
    loaded = load({"GLM47_ENV_FILE": "prod.env"}, tmp_path)
    assert (loaded.settings.tp, loaded.settings.role) == (8, "nats")
    assert loaded.origins["GLM47_ENV_FILE"] == Origin("prod.env", "environment")


def test_env_file_syntax(tmp_path: Path) -> None:
    env_file(
        tmp_path,
        "\ufeff# comment\nexport GLM47_TP=4  # tensor\nGLM47_RUN_DIR='/run/a b'\n"
        "UNRELATED=x\nGLM47_NAMESPACE\n"
        'GLM47_API_KEY="a$HOME${TP}b"\nGLM47_NATS_TOKEN=c$d\nGLM47_DP=1\nGLM47_DP=2\n',
    )
    settings = load({"HOME": "/home/x"}, tmp_path).settings
    assert (settings.tp, settings.dp, settings.run_dir, settings.namespace) == (4, 2, "/run/a b", "dynamo")
    assert settings.api_key and settings.api_key.get_secret_value() == "a$HOME${TP}b"
    assert settings.nats_token and settings.nats_token.get_secret_value() == "c$d"


def test_a_directory_called_env_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    assert load({}, tmp_path).settings == Settings()
    (line,) = problems({"GLM47_ENV_FILE": ".env"}, tmp_path)
    assert line == "cannot read GLM47_ENV_FILE: '.env' (environment): it is not a regular file: name a file"


def test_bad_env_file_lines_are_named_by_number_only(tmp_path: Path) -> None:
    env_file(tmp_path, "GLM47_TP=4\nthis is hunter2\nGLM47_DP=1\n'unclosed=hunter2\n")
    path = repr(str(tmp_path / ".env"))
    assert problems({}, tmp_path) == (
        f"cannot read .env: {path} line 2: write it as NAME=value",
        f"cannot read .env: {path} line 4: write it as NAME=value",
    )


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"pw", "pw"),
        (b"pw\n", "pw"),
        (b"pw\r\n", "pw"),
        (b"pw\n\n", "pw\n"),
        (b" pw \n", " pw "),
        (b"pw\r", "pw\r"),
    ],
)
def test_one_newline_is_taken_off_a_file(tmp_path: Path, content: bytes, value: str) -> None:
    (tmp_path / "pw").write_bytes(content)
    password = load({"GLM47_NATS_PASSWORD_FILE": str(tmp_path / "pw")}, tmp_path).settings.nats_password
    assert password is not None
    assert password.get_secret_value() == value


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "there is no such file: correct the path or mount the file"),
        (b"", "it is empty: write the value into it or unset the variable"),
        (b"\n", "it is empty: write the value into it or unset the variable"),
        (b"x" * (64 * 1024 + 1), "it is larger than 64 KiB: name the right file"),
        (b"\xff\xfe", "it is not UTF-8 text: write it as UTF-8"),
        (b"a\0b", "it holds a NUL character: write it as plain text"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "pw"
    if content is not None:
        path.write_bytes(content)
    expected = (f"cannot read GLM47_NATS_PASSWORD_FILE: {str(path)!r} (environment): {reason}",)
    assert problems({"GLM47_NATS_PASSWORD_FILE": str(path)}, tmp_path) == expected


def test_the_largest_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "pw").write_bytes(b"x" * (64 * 1024))
    password = load({"GLM47_NATS_PASSWORD_FILE": "pw"}, tmp_path).settings.nats_password
    assert password is not None
    assert len(password.get_secret_value()) == 64 * 1024


@pytest.mark.timeout(20)
def test_pipes_and_devices_do_not_hang_the_start(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (str(tmp_path / "pipe"), "/dev/zero", str(tmp_path)):
        (line,) = problems({"GLM47_API_KEY_FILE": path}, tmp_path)
        assert line.endswith("it is not a regular file: name a file")


def test_unreadable_file(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("x")
    (tmp_path / "pw").chmod(0)
    own = os.geteuid()
    if own == 0:  # root may read everything: be nobody for a moment
        os.seteuid(65534)
    try:
        user = os.geteuid()
        (line,) = problems({"GLM47_NATS_PASSWORD_FILE": "pw"}, tmp_path)
    finally:
        os.seteuid(own)
    assert line == (
        "cannot read GLM47_NATS_PASSWORD_FILE: 'pw' (environment): "
        f"user {user} may not read it: change its owner or mode"
    )


def test_value_and_file_together(tmp_path: Path) -> None:
    path = env_file(tmp_path, "GLM47_DP=1\nGLM47_DP_FILE=dp\n")
    assert problems({"GLM47_TP": "4", "GLM47_TP_FILE": "tp"}, tmp_path) == (
        "cannot use both GLM47_TP and GLM47_TP_FILE: both are set (environment): unset one of them",
        f"cannot use both GLM47_DP and GLM47_DP_FILE: both are set (.env {path}): unset one of them",
    )


def test_all_problems_of_one_start_together(tmp_path: Path) -> None:
    path = env_file(tmp_path, "GLM47_DP=zero\nGLM47_STOP_TIMEUOT=3\nGLM47_ENV_FILE=x\n")
    assert problems(
        {
            "ROLE": "prefil",
            "GLM47_TP": "four",
            "GLM47_HTTP_PORT": "65536",
            "GLM47_ENGINE": "vllm",
            "GLM47_SYMM_MEM": "maybe",
            "GLM47_MEM_FRACTION": "1",
            "GLM47_STALL_TIMEOUT": "inf",
            "GLM47_NODE_RANK": "-1",
            "GLM47_NAMESPACE": "Dynamo",
            "GLM47_RUN_DIR": "/r\nun",
            "GLM47_EXTRA_ARGS": "--a 'b",
            "GLM47_API_KEY": "hunter2\udcff",
            "GLM47_NATS_TOKN": "hunter2",
            "glm47_tp": "4",
            "GLM47_API_KEY_FILE": "",
        },
        tmp_path,
    ) == (
        "cannot use GLM47_NATS_TOKN (environment): no such setting: unset it or use the nearest name, "
        "GLM47_NATS_TOKEN",
        "cannot use glm47_tp (environment): no such setting: unset it or use the nearest name, GLM47_TP",
        f"cannot use GLM47_ENV_FILE (.env {path}): it is read from the environment only: "
        "set it there or take it out",
        f"cannot use GLM47_STOP_TIMEUOT (.env {path}): no such setting: unset it or use the nearest name, "
        "GLM47_STOP_TIMEOUT",
        "cannot use ROLE: 'prefil' (environment): give single, auto, or a comma-joined set of etcd, nats, "
        "prefill, decode, aggregated, frontend, nginx; instead of 'prefil' you may mean prefill",
        "cannot use GLM47_ENGINE: 'vllm' (environment): give sglang or mocker",
        "cannot use GLM47_TP: 'four' (environment): give a whole number of at least 1",
        f"cannot use GLM47_DP: 'zero' (.env {path}): give a whole number of at least 1",
        "cannot use GLM47_MEM_FRACTION: '1' (environment): give a number above 0 and below 1",
        "cannot use GLM47_SYMM_MEM: 'maybe' (environment): give true or false",
        'cannot use GLM47_EXTRA_ARGS: "--a \'b" (environment): '
        "quote it as for a shell (no closing quotation)",
        "cannot use GLM47_NAMESPACE: 'Dynamo' (environment): give lower-case letters, digits, - and _, "
        "the first a letter or a digit",
        "cannot use GLM47_NODE_RANK: '-1' (environment): give a whole number of at least 0",
        "cannot use GLM47_HTTP_PORT: '65536' (environment): give a whole number from 1 to 65535",
        "cannot use GLM47_RUN_DIR: '/r\\nun' (environment): take the control character '\\n' out",
        "cannot use GLM47_STALL_TIMEOUT: 'inf' (environment): give a number of seconds above 0 "
        "and at most 31536000",
        "cannot use GLM47_API_KEY: *** (environment): give UTF-8 text without NUL characters",
    )


def test_arguments_may_span_lines(tmp_path: Path) -> None:
    assert load({"GLM47_EXTRA_ARGS": "--a 1\n--b 2\n"}, tmp_path).settings.extra_args == "--a 1\n--b 2"


@pytest.mark.parametrize("before", ["", " ", "\t", "\u00a0"])
@pytest.mark.parametrize("after", [" ", "   ", "\t", "\n", "\r", " \r\n", "\u00a0"])
def test_white_space_around_a_value_is_nobodys_wish(before: str, after: str, tmp_path: Path) -> None:
    values = {
        "ROLE": "prefill",
        "GLM47_MODEL_PATH": "/my model",
        "GLM47_HEAD_ADDRESS": "node1",
        "GLM47_QUANTIZATION": "modelopt_fp4",
        "GLM47_TP": "8",
        "GLM47_SYMM_MEM": "true",
        "GLM47_MOE_RUNNER": "auto",
        "GLM47_STOP_TIMEOUT": "30",
        "GLM47_EXTRA_ARGS": "--a 'b c'",
    }
    clean = load(values, tmp_path)
    padded = load({name: f"{before}{value}{after}" for name, value in values.items()}, tmp_path)
    assert padded.settings == clean.settings
    (tmp_path / "head").write_text(f"{before}node1{after}\n")
    assert load({"GLM47_HEAD_ADDRESS_FILE": "head "}, tmp_path).settings.head_address == "node1"
    assert load({"GLM47_HEAD_ADDRESS": f"{before}{after}"}, tmp_path).settings.head_address is None
    # A password may begin or end with a blank.
    secret = load({"GLM47_API_KEY": f" key{after}"}, tmp_path).settings.api_key
    assert secret is not None and secret.get_secret_value() == f" key{after}"


def test_internal_name_is_accepted(tmp_path: Path) -> None:
    assert load({"GLM47_PROCESS": "frontend"}, tmp_path).settings == Settings()
    env_file(tmp_path, "GLM47_PROCESS=frontend\n")
    assert "read from the environment only" in problems({}, tmp_path)[0]
