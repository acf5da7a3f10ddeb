"""Settings from their layers: environment, GLM47_X_FILE, .env, default, each value with its origin.

`load` reads files and nothing else: the environment is an argument. Every problem of one start is
reported together, and no secret's value is ever part of a problem or an origin.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import SecretStr, ValidationError

from entrypoint.errors import ConfigError
from entrypoint.settings.early import DEFAULT_ENV_FILE, ENV_FILE_VARIABLE
from entrypoint.settings.files import Unreadable, is_file, parse_env_file, read_text
from entrypoint.settings.hosts import not_a_host
from entrypoint.settings.origin import REDACTED, Origin
from entrypoint.settings.schema import (
    INTERNAL,
    LOADER_ONLY,
    PREFIX,
    Settings,
    control_character,
    roles_of,
    variable_of,
)
from entrypoint.settings.secrets import redacted_text
from entrypoint.settings.words import (
    file_variables,
    is_secret,
    kind_of,
    nearest,
    shown,
    shown_name,
    shown_path,
    takes,
    variables,
)

__all__ = ["NATIVE_NAMES", "NATIVE_PREFIXES", "Loaded", "is_native", "is_secret_native", "load", "roles_of"]

ENVIRONMENT = "environment"

NATIVE_NAMES = ("CUDA_VISIBLE_DEVICES", "ETCD_ENDPOINTS", "HOST_IP", "NATS_SERVER")
NATIVE_PREFIXES = (
    "DYN_",
    "ETCD_AUTH_",
    "FLASHINFER_",
    "GLOO_",
    "HF_",
    "MC_",
    "NATS_AUTH_",
    "NATS_TLS_",
    "NCCL_",
    "NIXL_",
    "NVSHMEM_",
    "SGLANG_",
    "TORCHINDUCTOR_",
    "TORCH_",
    "TRITON_",
    "TVM_",
    "UCX_",
)
"""Variables that others define: passed through untouched, and stronger than the plan's own values."""

_SECRET_NATIVE = re.compile(r"(PASSWORD|PASSWD|SECRET|TOKEN|API_KEY|PRIVATE_KEY|NKEY)(?!.*(_PATH|_FILE)$)")

# What kubernetes puts into every pod for each Service of the namespace (enableServiceLinks): a Service
# called glm47 or glm47-x gives names with our prefix that nobody meant for us.
_SERVICE_LINKS = (
    (re.compile(r"_SERVICE_HOST$"), re.compile(r"[0-9A-Fa-f.:]+")),
    (re.compile(r"_SERVICE_PORT(_[A-Z0-9_]+)?$"), re.compile(r"[0-9]+")),
    (re.compile(r"_PORT(_[0-9]+_(TCP|UDP|SCTP))?$"), re.compile(r"(tcp|udp|sctp)://\S+")),
    (re.compile(r"_PORT_[0-9]+_(TCP|UDP|SCTP)_PROTO$"), re.compile(r"tcp|udp|sctp")),
    (re.compile(r"_PORT_[0-9]+_(TCP|UDP|SCTP)_PORT$"), re.compile(r"[0-9]+")),
    (re.compile(r"_PORT_[0-9]+_(TCP|UDP|SCTP)_ADDR$"), re.compile(r"[0-9A-Fa-f.:]+")),
)


@dataclass(frozen=True)
class Loaded:
    """What `load` found."""

    settings: Settings
    origins: Mapping[str, Origin]
    """By variable (ROLE, GLM47_TP, …, GLM47_ENV_FILE): the value, `REDACTED` for a secret, and its layer."""
    native: Mapping[str, str] = field(repr=False)
    """Variables that Dynamo, SGLang, NCCL and the like define; the environment's win over .env's."""
    env_file_native: Mapping[str, str] = field(repr=False)
    """Those of `native` that only .env sets: the container's environment lacks them, so children
    get them only if they are added."""


@dataclass(frozen=True)
class _Raw:
    """A value as text, with its layer."""

    text: str = field(repr=False)
    origin: str


def is_native(name: str) -> bool:
    """Whether Dynamo, SGLang, NCCL or the like define the variable `name`."""
    return name in NATIVE_NAMES or name.startswith(NATIVE_PREFIXES)


def is_secret_native(name: str, value: str) -> bool:
    """Whether a native variable's value must not be printed: by its name, or as a URL with a user in it."""
    return _SECRET_NATIVE.search(name) is not None or "@" in value


def is_service_link(name: str, value: str) -> bool:
    """Whether kubernetes set `name` for a Service of the namespace, judged by name and value."""
    return any(n.search(name) and v.fullmatch(value) for n, v in _SERVICE_LINKS)


def load(environ: Mapping[str, str], cwd: Path) -> Loaded:
    """Read every layer and validate.

    An empty value counts as unset in every layer, because Compose passes ``VAR=`` for what is not set. White
    space around a value is nobody's wish (``--env-file`` and YAML keep it): it goes, but from secrets.
    Relative paths (GLM47_ENV_FILE, GLM47_X_FILE) start at `cwd`.
    Raises ConfigError with one line per problem, all problems of all layers together.
    """
    problems: list[str] = []
    env_file = environ.get(ENV_FILE_VARIABLE) or None
    env_path = cwd / (env_file or DEFAULT_ENV_FILE)
    from_file = _read_env_file(env_path, env_file, problems)
    env_origin = f".env {shown_path(env_path)}"

    problems += _unknown(environ, ENVIRONMENT, allowed=(*LOADER_ONLY, *INTERNAL))
    problems += _unknown(from_file, env_origin, allowed=())

    raw: dict[str, _Raw] = {}
    for name in Settings.model_fields:
        for layer, origin in ((environ, ENVIRONMENT), (from_file, env_origin)):
            found = _find(name, layer, origin, cwd, problems)
            if found is not None:
                raw[name] = found
                break

    settings = _validate(raw, problems)
    if settings is None:
        raise ConfigError(problems)

    env_file_native = {k: v for k, v in from_file.items() if is_native(k) and k not in environ}
    native = {k: v for k, v in environ.items() if is_native(k)} | env_file_native
    return Loaded(
        settings=settings,
        origins=MappingProxyType(_origins(settings, raw, env_file)),
        native=MappingProxyType(native),
        env_file_native=MappingProxyType(env_file_native),
    )


def _read_env_file(path: Path, named: str | None, problems: list[str]) -> Mapping[str, str]:
    if named is None and not is_file(path):
        # Only a .env that somebody asked for must exist; a directory called .env is somebody's virtual
        # environment.
        return {}
    try:
        parsed, bad_lines = parse_env_file(read_text(path, encoding="utf-8-sig"))
    except Unreadable as error:
        what = f"{ENV_FILE_VARIABLE}: {shown(named)} (environment)" if named else f".env: {shown(str(path))}"
        problems.append(f"cannot read {what}: {error}")
        return {}
    for line in bad_lines:
        # The line itself may hold a secret.
        problems.append(f"cannot read .env: {shown(str(path))} line {line}: write it as NAME=value")
    return parsed


def _unknown(layer: Mapping[str, str], origin: str, allowed: tuple[str, ...]) -> Iterator[str]:
    known = {*variables(), *file_variables(), *allowed}
    for name in sorted(layer):
        if not name.upper().startswith(PREFIX) or name in known:
            continue
        if origin == ENVIRONMENT and is_service_link(name, layer[name]):
            continue
        what = f"{shown_name(name)} ({origin})"
        if name in (*LOADER_ONLY, *INTERNAL):
            yield f"cannot use {what}: it is read from the environment only: set it there or take it out"
        else:
            yield f"cannot use {what}: no such setting: unset it or use the nearest name, {nearest(name)}"


def _find(name: str, layer: Mapping[str, str], origin: str, cwd: Path, problems: list[str]) -> _Raw | None:
    """The value that one layer gives to the field `name`; None if it gives none or a problem was added."""
    variable = variable_of(name)
    file_variable = f"{variable}_FILE"
    text = _trimmed(name, layer.get(variable) or "") or None
    path = ((layer.get(file_variable) or "").strip() or None) if variable != "ROLE" else None
    if text is not None and path is not None:
        problems.append(
            f"cannot use both {variable} and {file_variable}: both are set ({origin}): unset one of them"
        )
        return None
    if path is not None:
        try:
            content = read_text(cwd / path)
            text = content.removesuffix("\n").removesuffix("\r") if content.endswith("\n") else content
            text = _trimmed(name, text)
            if not text:
                raise Unreadable("it is empty: write the value into it or unset the variable")
        except Unreadable as error:
            problems.append(f"cannot read {file_variable}: {shown(path)} ({origin}): {error}")
            return None
        return _Raw(text, f"file {shown_path(cwd / path)}")
    return None if text is None else _Raw(text, origin)


def _trimmed(name: str, text: str) -> str:
    return text if is_secret(name) else text.strip()


def _validate(raw: Mapping[str, _Raw], problems: list[str]) -> Settings | None:
    """The settings, or None after a line was added to `problems` for each value that cannot be used."""
    remedies: dict[str, str] = {}
    usable: dict[str, str] = {}
    for name, value in raw.items():
        if "\0" in value.text or not _is_utf8(value.text):
            remedies[name] = "give UTF-8 text without NUL characters"
        elif value.origin == ENVIRONMENT and is_service_link(variable_of(name), value.text):
            remedies[name] = (
                "kubernetes set it for a Service of that name: set enableServiceLinks: false in the pod, "
                "rename the Service, or set the variable itself"
            )
        elif not is_secret(name) and (found := control_character(name, value.text)):
            remedies[name] = f"take the control character {found!r} out"
        elif (remedy := not_a_host(name, value.text)) is not None:
            remedies[name] = remedy
        else:
            usable[name] = value.text
    settings = None
    try:
        settings = Settings(**usable)  # type: ignore[arg-type]
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            name = str(detail["loc"][0]).lower()
            own = detail.get("ctx", {}).get("error") if detail["type"] == "value_error" else None
            remedies.setdefault(
                name, str(own) if own else f"give {takes(kind_of(Settings.model_fields[name]))}"
            )
    # Outside the handler: a ConfigError must not carry pydantic's error, with the input in it, as context.
    for name in Settings.model_fields:
        if name in remedies:
            text = REDACTED if is_secret(name) else shown(_without_secrets(name, raw[name].text))
            problems.append(f"cannot use {variable_of(name)}: {text} ({raw[name].origin}): {remedies[name]}")
    return None if problems else settings


def _without_secrets(name: str, value: Any) -> Any:
    return redacted_text(value) if name.endswith("extra_args") and value else value


def _origins(settings: Settings, raw: Mapping[str, _Raw], env_file: str | None) -> dict[str, Origin]:
    origins: dict[str, Origin] = {}
    for name in Settings.model_fields:
        value = getattr(settings, name)
        origins[variable_of(name)] = Origin(
            value=REDACTED if isinstance(value, SecretStr) else _without_secrets(name, value),
            origin=raw[name].origin if name in raw else "default",
        )
    origins[ENV_FILE_VARIABLE] = Origin(env_file or DEFAULT_ENV_FILE, ENVIRONMENT if env_file else "default")
    return origins


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
