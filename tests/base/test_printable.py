"""Nothing that a person set, or another program wrote, commands the terminal that an error is shown on."""

from __future__ import annotations

import pickle

import pytest
from click.testing import CliRunner

from entrypoint import errors
from entrypoint.base.printable import clean, without_passwords
from entrypoint.commands.cli import cli
from entrypoint.errors import ConfigError, RunnerError

EVIL = {
    "an escape": "\x1b[2J",
    "a title": "\x1b]0;owned\x07",
    "eight bits": "\x9b31m",
    "a bell": "\x07",
    "a carriage return": "a\rb",
    "a backspace": "a\x08b",
    "a line end": "a\nb",
    "a tab": "a\tb",
    "a nul": "a\x00b",
    "delete": "\x7f",
}
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RunnerError)]
SETTINGS = (
    "ROLE", "GLM47_TP", "GLM47_HTTP_PORT", "GLM47_STOP_TIMEOUT", "GLM47_ENGINE", "GLM47_EXTRA_ARGS",
    "GLM47_HEAD_ADDRESS", "LWS_WORKER_INDEX", "DYN_SYSTEM_PORT", "ETCD_ENDPOINTS", "SLURM_JOB_NODELIST",
    "GLM47_NOT_A_SETTING",
)  # fmt: skip


def commands(text: str) -> list[str]:
    return [c for c in text if c != "\n" and (ord(c) < 32 or 127 <= ord(c) < 160)]


@pytest.mark.parametrize("text", EVIL.values(), ids=EVIL)
def test_one_line_without_control_characters(text: str) -> None:
    assert not commands(clean(text)) and "\n" not in clean(text)


@pytest.mark.parametrize("text", ["cannot use GLM47_TP: é: give a number", "日本語", "", "a  b"])
def test_text_stays_as_it_is(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", EVIL.values(), ids=EVIL)
def test_no_error_has_any(kind: type[RunnerError], text: str) -> None:
    error = kind(f"cannot use GLM47_X: {text}: give another")
    assert not commands(str(error))
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and again.exit_code == error.exit_code


def test_each_problem_stays_a_line_of_its_own() -> None:
    error = ConfigError(["cannot use A: x\ny: no", "cannot use B: \x1b[1m: no"])
    assert str(error).split("\n") == ["cannot use A: x y: no", "cannot use B:  [1m: no"]


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(
    "text", [t for t in EVIL.values() if "\0" not in t], ids=[i for i in EVIL if "nul" not in i]
)
def test_no_setting_commands_the_terminal(name: str, text: str) -> None:
    given = {"ROLE": "decode", "GLM47_HEAD_ADDRESS": "n1", name: text}
    found = CliRunner().invoke(cli, ["plan"], env=given)
    assert found.exit_code in (0, 78), found.output
    assert not commands(found.output), found.output


URLS = [
    ("nats://user:pass@h:4222", "nats://user:***@h:4222"),
    ("http://:pass@h", "http://:***@h"),
    ("http://u:p@h:1,http://u:q@i:1", "http://u:***@h:1,http://u:***@i:1"),
    ("http://u:p:q@h", "http://u:***@h"),
    ("http://user@h:1", "http://user@h:1"),
    ("http://h:2379/a@b", "http://h:2379/a@b"),
    ("see me@example.com: no", "see me@example.com: no"),
]


@pytest.mark.parametrize(("text", "shown"), URLS)
def test_the_password_of_a_url_is_in_no_error(text: str, shown: str) -> None:
    assert without_passwords(text) == shown
    for kind in KINDS:
        assert str(kind(f"cannot use GLM47_TP: {text}: give a number")).count(shown) == 1
