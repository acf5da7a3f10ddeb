"""Secrets in extra arguments are shown nowhere, and what is none stays readable."""

from __future__ import annotations

import json
import shlex

import pytest

from entrypoint.plan.text import text
from entrypoint.plan.types import to_jsonable
from entrypoint.settings.secrets import is_secret_option, redacted, redacted_text
from tests.plan.deployments import Container, build
from tests.support.plans import plan, process

SECRET = (
    "--api-key", "--api-k", "--admin-api-key", "--api_key", "--hf-token", "--token", "--auth-token",
    "--password",
    "--ssl-keyfile-password", "--s3-secret-access-key", "--secret", "--private-key", "--encryption-key",
    "--db-passwd", "--client-credentials",
)  # fmt: skip
HARMLESS = (
    "--tokenizer-path", "--tokenizer-mode", "--max-total-tokens", "--max-prefill-tokens", "--ssl-keyfile",
    "--api-key-file", "--skip-tokenizer-init", "--token-budget", "--keyword", "--tp-size", "--model-path",
    "--num-continuous-decode-steps", "--kv-cache-dtype", "--monkey",
)  # fmt: skip
INSIDE = (
    """--model-loader-extra-config '{"api_key": "SEKRET"}'""",
    "--proxy http://user:SEKRET@proxy:1",
    "--header 'Authorization: Bearer SEKRET'",
    "--env HF_TOKEN=SEKRET",
    "--set password:SEKRET",
    "--api-key SEKRET SEKRET",
    "--api-key 'SEKRET",
)


@pytest.mark.parametrize("flag", SECRET)
def test_the_value_of_a_secret_option_is_hidden(flag: str) -> None:
    assert redacted(("--a", "b", flag, "SEKRET", "--c")) == ("--a", "b", flag, "***", "--c")
    assert redacted((f"{flag}=SEKRET", "x")) == (f"{flag}=***", "x")


@pytest.mark.parametrize("flag", HARMLESS)
def test_other_options_stay_readable(flag: str) -> None:
    assert not is_secret_option(flag)
    argv = (flag, "8", "--x", "/a:b@c", f"{flag}=8")
    assert redacted(argv) == argv


@pytest.mark.parametrize("arguments", [*INSIDE, *(f"{flag} SEKRET --x 1" for flag in SECRET)])
def test_no_plan_shows_one(arguments: str) -> None:
    assert "SEKRET" not in redacted_text(arguments)
    words = arguments.replace("'SEKRET", "SEKRET") if arguments.count("'") == 1 else arguments
    found = plan(process("decode", argv=("python3", *shlex.split(words))))
    assert "SEKRET" not in json.dumps(to_jsonable(found)) and "SEKRET" not in text(found)


def test_a_whole_plan_shows_none() -> None:
    found = build(
        Container(
            {"role": "single", "extra_args": "--api-key SEKRET", "frontend_extra_args": "--token=SEKRET"}
        )
    )
    assert any("SEKRET" in word for process in found.processes for word in process.argv)
    assert "SEKRET" not in json.dumps(to_jsonable(found)) and "SEKRET" not in text(found)


def test_arguments_without_a_secret_are_shown_as_they_were_written() -> None:
    given = "--tp  4   --json '{\"a\": 1}'"
    assert redacted_text(given) == given
