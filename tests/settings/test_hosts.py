"""A setting that names a host takes a name or an address, and nothing around it."""

from __future__ import annotations

from pathlib import Path

import pytest

from entrypoint.errors import ConfigError
from entrypoint.settings.hosts import HOSTS
from entrypoint.settings.load import load
from entrypoint.settings.schema import variable_of

GOOD = (
    "head",
    "n-1.cluster.local",
    "n1.",
    "10.0.0.1",
    "::1",
    "[::1]",
    "fe80::1",
    "0.0.0.0",
    "::",
    "a_b",
    "köln",
)
BAD = (
    "head:2379", "http://head", "http://head:2379", "10.0.0.1:2379", "[::1]:2379", "he ad", "head/x", "a,b",
    "user@head", "-head", "[head]", "::g", "head:", "*",
)  # fmt: skip


@pytest.mark.parametrize("field", HOSTS)
@pytest.mark.parametrize("value", GOOD)
def test_names_and_addresses(field: str, value: str, tmp_path: Path) -> None:
    assert getattr(load({variable_of(field): value}, tmp_path).settings, field) == value


@pytest.mark.parametrize("field", HOSTS)
@pytest.mark.parametrize("value", BAD)
def test_anything_else_is_refused(field: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give a host name or an address alone") as error:
        load({variable_of(field): value}, tmp_path)
    assert str(error.value).startswith(f"cannot use {variable_of(field)}: {value!r} (environment)")
