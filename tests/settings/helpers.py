"""Shared by the tests of settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from entrypoint.errors import ConfigError, ExitCode
from entrypoint.settings.load import load


def problems(environ: Mapping[str, str], cwd: Path) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(environ, cwd)
    assert caught.value.exit_code == ExitCode.CONFIG
    assert caught.value.__context__ is None, "an error in the context would carry the input along"
    return caught.value.problems


def env_file(cwd: Path, text: str) -> Path:
    path = cwd / ".env"
    path.write_text(text, encoding="utf-8")
    return path
