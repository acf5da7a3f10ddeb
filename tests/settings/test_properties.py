"""Properties of loading settings: precedence, no error but ConfigError, secrets, suggestions."""

from __future__ import annotations

import string
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import assume, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from entrypoint.errors import ConfigError
from entrypoint.settings.hosts import HOSTS
from entrypoint.settings.load import Loaded, load
from entrypoint.settings.origin import REDACTED
from entrypoint.settings.schema import Settings, variable_of
from entrypoint.settings.words import file_variables, is_secret, kind_of, nearest, variables

FIELDS = tuple(Settings.model_fields)
SECRETS = tuple(field for field in FIELDS if is_secret(field))
LAYERS = ("environment", "file", "dotenv")

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=30)
# What an environment can hold: anything but NUL, undecodable bytes as lone surrogates.
ANY_TEXT = st.text(st.characters(exclude_characters="\0"), max_size=60) | st.text(max_size=20)


def valid(field: str) -> st.SearchStrategy[str]:
    """Values that `field` takes, as text."""
    kind = kind_of(Settings.model_fields[field])
    if field == "role":
        return st.lists(st.sampled_from(("etcd", "nats", "decode")), min_size=1, unique=True).map(",".join)
    if field == "namespace":
        return st.text(string.ascii_lowercase + string.digits, min_size=1)
    if field == "etcd_members":
        return st.sampled_from(("a", "a,b,c", "a=10.0.0.1,b=[fd00::1],c"))
    if field in HOSTS:
        return st.text(string.ascii_letters + string.digits, min_size=1) | st.ip_addresses().map(str)
    if field.endswith("extra_args"):
        return st.text(string.ascii_letters + "-= ", min_size=1).map(lambda text: f"-{text}-")
    if kind.choices:
        return st.sampled_from(kind.choices)
    if kind.type is bool:
        return st.sampled_from(("true", "false", "1", "0", "yes", "no", "on", "off"))
    if kind.type is int:
        return st.integers(kind.bound("ge"), kind.bound("le") or 10**6).map(str)
    if kind.type is float:
        return st.floats(0.01, 0.99).map(str)
    return TEXT


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, dict[str, str]]:
    """Per field, valid values for a random subset of the layers."""
    fields = draw(st.lists(st.sampled_from(FIELDS), unique=True, max_size=12))
    layout: dict[str, dict[str, str]] = {}
    for field in fields:
        layers = draw(st.sets(st.sampled_from(LAYERS)))
        if field == "role":
            layers.discard("file")
        if {"environment", "file"} <= layers:
            layers.discard(draw(st.sampled_from(("environment", "file"))))
        layout[field] = {layer: draw(valid(field)) for layer in sorted(layers)}
    return layout


def lay_out(layout: dict[str, dict[str, str]], cwd: Path) -> dict[str, str]:
    """Write the files of `layout` and return its environment."""
    environ: dict[str, str] = {}
    lines: list[str] = []
    for field, layers in layout.items():
        variable = variable_of(field)
        if "environment" in layers:
            environ[variable] = layers["environment"]
        if "file" in layers:
            (cwd / field).write_bytes(layers["file"].encode() + b"\n")
            environ[f"{variable}_FILE"] = field
        if "dotenv" in layers:
            quoted = layers["dotenv"].replace("\\", "\\\\").replace("'", "\\'")
            lines.append(f"{variable}='{quoted}'\n")
    (cwd / ".env").write_bytes("".join(lines).encode())
    return environ


@hypothesis_settings(max_examples=150, deadline=None)
@given(layouts())
def test_precedence(layout: dict[str, dict[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        cwd = Path(directory)
        loaded = load(lay_out(layout, cwd), cwd)
    winners = {
        field: next(layer for layer in LAYERS if layer in layers)
        for field, layers in layout.items()
        if layers
    }
    won: dict[str, Any] = {f: layout[f][layer] for f, layer in winners.items()}
    assert loaded.settings == Settings(**won)
    for field in FIELDS:
        origin = loaded.origins[variable_of(field)]
        expected = {"environment": "environment", "file": f"file {cwd / field}", "dotenv": f".env {cwd}/.env"}
        assert origin.origin == (expected[winners[field]] if field in winners else "default")
        value = getattr(loaded.settings, field)
        assert origin.value == (REDACTED if field in SECRETS and value is not None else value)


def load_or_fail(environ: dict[str, str], cwd: Path) -> Loaded | ConfigError:
    try:
        return load(environ, cwd)
    except ConfigError as error:
        assert error.problems
        for line in error.problems:
            assert line.startswith("cannot ")
            assert line.isprintable(), f"more than one plain line: {line!r}"
            assert "Input should" not in line and "pydantic" not in line
        return error


@hypothesis_settings(max_examples=400, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from((*variables(), *file_variables(), "GLM47_ENV_FILE", "NCCL_DEBUG"))
        | ANY_TEXT.map(lambda text: f"GLM47_{text}"),
        ANY_TEXT,
        max_size=6,
    )
)
@example({"GLM47_TP": "9" * 5000})
@example({"GLM47_STOP_TIMEOUT": "1e999"})
@example({"GLM47_API_KEY_FILE": "a\0b"})
@example({"GLM47_API_KEY_FILE": "x" * 5000})
@example({"GLM47_ENV_FILE": "\udcff"})
@example({"GLM47_\n": "\r"})
def test_any_text_gives_settings_or_a_config_error(environ: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        load_or_fail(environ, Path(directory))


@hypothesis_settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=200)
    | ANY_TEXT.map(
        lambda text: f"GLM47_TP={text}".encode(errors="surrogateescape" if text.isascii() else "replace")
    )
)
def test_any_env_file_gives_settings_or_a_config_error(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        cwd = Path(directory)
        (cwd / ".env").write_bytes(content)
        load_or_fail({}, cwd)


@hypothesis_settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(SECRETS),
    st.sampled_from(("environment", "file", "dotenv", "typo", "bad line")),
    # A prefix that no field name or message has: hypothesis tries words of the source as well.
    st.text(string.ascii_letters + string.digits + "$%{}", max_size=30).map("S3cr3t-${}".__add__),
    st.sampled_from(("", "\udcff", "\0")),
    st.booleans(),
)
def test_a_secret_is_never_shown(
    field: str, layer: str, secret: str, spoiler: str, other_problem: bool
) -> None:
    variable = variable_of(field)
    with tempfile.TemporaryDirectory() as directory:
        assume(secret not in directory)
        cwd = Path(directory)
        environ = {"GLM47_TP": "four"} if other_problem else {}
        if layer == "environment":
            environ[variable] = secret + spoiler
        elif layer == "file":
            (cwd / "secret").write_bytes((secret + spoiler).encode(errors="surrogateescape"))
            environ[f"{variable}_FILE"] = "secret"
        elif layer == "typo":
            environ[f"{variable}S"] = secret
        else:
            line = f"{variable}='{secret}'" if layer == "dotenv" else f"{variable} is {secret}"
            (cwd / ".env").write_text(f"{line}\n")
        outcome = load_or_fail(environ, cwd)
    seen = [repr(outcome), str(outcome)]
    if isinstance(outcome, Loaded):
        seen.append(repr(dict(outcome.origins)))
        value = getattr(outcome.settings, field)
        assert value is not None and value.get_secret_value() == secret
    else:
        seen += outcome.problems
        assert outcome.__context__ is None and outcome.__cause__ is None
    assert all(secret not in text for text in seen)


LONG_NAMES = tuple(name for name in variables() if len(name) >= len("GLM47_") + 5)


@hypothesis_settings(max_examples=300, deadline=None)
@given(st.sampled_from(LONG_NAMES), st.data())
def test_a_near_miss_names_the_right_setting(name: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(len("GLM47_"), len(name) - 2))
    typo = data.draw(
        st.sampled_from(
            (
                name[:at] + name[at] + name[at:],  # doubled
                name[:at] + name[at + 1 :],  # left out
                name[:at] + name[at + 1] + name[at] + name[at + 2 :],  # swapped
                name.lower(),
                name.replace("_", "", 2).replace("GLM47", "GLM47_", 1),  # joined
            )
        )
    )
    assume(typo not in variables())
    assert nearest(typo) == name
