"""NATS of this deployment, and where it is for those that need one; what it asks of them.

Dynamo takes no user and password out of NATS_SERVER: where no variables of their own name them, it shows the
user `user` with the password `user` (docs/decisions/nats.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from pydantic import SecretStr

from entrypoint.node.certificates import AUTHORITY, CERTIFICATE, KEY
from entrypoint.plan.context import Context, Part
from entrypoint.plan.diagnostics import Diagnostic, problem, unmet, warning
from entrypoint.plan.endpoint import LOOPBACK
from entrypoint.plan.releases import NATS_TLS
from entrypoint.plan.roles.executable import binary, server
from entrypoint.plan.types import Data, Endpoint, Gate, NatsProbe, SecretFile
from entrypoint.settings.origin import REDACTED
from entrypoint.settings.schema import Settings

PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")
"""What stands for itself between quotes in nats-server's configuration; anything else is written by bytes."""
HASH = re.compile(r"\$2[abxy]\$\d\d\$")
"""What a password begins with that nats-server takes for a hash of one (bcrypt)."""
KEYS = ("NATS_AUTH_NKEY", "NATS_AUTH_CREDENTIALS_FILE")
"""With what else Dynamo may say who it is, where it has neither a password nor a token."""


@dataclass(frozen=True)
class Shown:
    """What Dynamo shows NATS, with the names of what gave it."""

    user: str | None
    password: str | None = field(repr=False)
    token: str | None = field(repr=False)
    names: tuple[str, ...]

    @property
    def nothing(self) -> bool:
        return (self.user, self.password, self.token) == (None, None, None)


def shown(ctx: Context) -> Shown:
    """By setting or by Dynamo's own variable, which wins; its own server here asks for the same."""
    s = ctx.settings
    values: list[str | None] = []
    names: list[str] = []
    given: tuple[str | SecretStr | None, ...] = (s.nats_username, s.nats_password, s.nats_token)
    for what, one in zip(("USERNAME", "PASSWORD", "TOKEN"), given, strict=True):
        native, value = f"NATS_AUTH_{what}", one.get_secret_value() if isinstance(one, SecretStr) else one
        values.append(ctx.native.get(native, value))
        names.append(native if native in ctx.native else f"GLM47_NATS_{what}")
    user, password, token = values
    return Shown(user, password, token, tuple(names))


def scheme(s: Settings) -> str:
    """Of NATS' URL."""
    return "nats" if s.nats_tls_dir is None else "tls"


def nats(ctx: Context) -> Part:
    """A NATS server with JetStream; it asks for a user, a token or certificates where some are given."""
    s = ctx.settings
    client = Endpoint("nats", s.nats_port, ctx.bind, "nats", "GLM47_NATS_PORT")
    monitor = Endpoint("nats-monitor", s.nats_monitor_port, ctx.bind, "nats", "GLM47_NATS_MONITOR_PORT")
    executable, about = binary(ctx, "nats-server", s.nats_bin, "GLM47_NATS_BIN")
    data = Data(s.nats_data_dir or s.run_dir + "/nats", "GLM47_NATS_DATA_DIR")
    file = asks(ctx)
    argv = (
        executable,
        *(("--config", file.path) if file is not None else ()),
        "--jetstream",
        "--store_dir",
        data.directory,
        "--addr",
        client.host,
        "--port",
        str(client.number),
        "--http_port",
        str(monitor.number),
        *_tls(s.nats_tls_dir),
    )
    process = server(
        ctx, "nats", argv, _probe(ctx, LOOPBACK, s.nats_port, tls=scheme(s) == "tls", own=True), data
    )
    return Part(process, (client, monitor), about)


def asks(ctx: Context) -> SecretFile | None:
    """The configuration of the server in this container: whom it lets in; None: everybody."""
    who = shown(ctx)
    if who.token is not None:
        words = f"token: {_quoted(who.token)}"
    elif who.user is not None and who.password is not None:
        words = f"user: {_quoted(who.user)}, password: {_quoted(who.password)}"
    else:
        return None
    return SecretFile(f"{ctx.settings.run_dir}/nats.conf", f"authorization {{ {words} }}\n")


def _quoted(text: str) -> str:
    return '"{}"'.format("".join(chr(b) if chr(b) in PLAIN else f"\\x{b:02x}" for b in text.encode()))


def _tls(directory: str | None) -> tuple[str, ...]:
    if directory is None:
        return ()
    files = {"--tlscert": CERTIFICATE, "--tlskey": KEY, "--tlscacert": AUTHORITY}
    return ("--tls", *(f"{option}={directory}/{name}" for option, name in files.items()), "--tlsverify")


def environment(ctx: Context) -> dict[str, str]:
    """Where Dynamo finds the certificates: paths, and not texts as for etcd."""
    directory = ctx.settings.nats_tls_dir
    if directory is None or ctx.nats_url is None:
        return {}
    files = {"CA_CERT": AUTHORITY, "CLIENT_CERT": CERTIFICATE, "CLIENT_KEY": KEY}
    return {f"NATS_TLS_{name}_PATH": f"{directory}/{file}" for name, file in files.items()}


def about(ctx: Context) -> Iterator[Diagnostic]:
    """What is wrong with what NATS asks for or is shown, where this container has to do with it."""
    if "nats" in ctx.roles or ctx.nats_url is not None:
        yield from _about_words(ctx)
        yield from _about_tls(ctx)


def _about_words(ctx: Context) -> Iterator[Diagnostic]:
    who = shown(ctx)
    user, password, token = who.names
    if who.user is not None and who.password is None:
        yield problem(f"cannot use {user}: {who.user}: it has no password: set {_setting(password)}")
    if who.password is not None and who.user is None:
        yield problem(f"cannot use {password}: {REDACTED}: it has no user: set {_setting(user)}")
    if who.token is not None and (who.user, who.password) != (None, None):
        why = f"NATS is shown a token or a password, not both: unset it, or {user} and {password}"
        yield problem(f"cannot use {token}: {REDACTED}: {why}")
    for name, secret in ((password, who.password), (token, who.token)) if "nats" in ctx.roles else ():
        if secret is not None and HASH.match(secret):
            why = "nats-server takes what begins as a hash of a password (bcrypt) for one: choose another"
            yield problem(f"cannot use {name}: {REDACTED}: {why}")
    url = ctx.native.get("NATS_SERVER", "")
    if "@" in url and who.nothing and not set(KEYS) & ctx.native.keys():
        yield warning(
            f"NATS_SERVER: {url.rpartition('@')[2]}: Dynamo does not show NATS the user and password in it: "
            "set GLM47_NATS_USERNAME and GLM47_NATS_PASSWORD"
        )


def _setting(name: str) -> str:
    return f"{name} or {name}_FILE" if name.startswith("GLM47_") else name


def _about_tls(ctx: Context) -> Iterator[Diagnostic]:
    directory, release = ctx.settings.nats_tls_dir, ctx.facts.engine.dynamo
    url = (ctx.nats_url or "").split(",")[0].strip().rpartition("@")[2]
    over_tls = (ctx.nats_url or "").strip().startswith("tls:")
    setting, value = ("NATS_SERVER", url) if directory is None else ("GLM47_NATS_TLS_DIR", directory)
    if url and (over_tls or directory is not None) and NATS_TLS.holds(release) is False:
        yield problem(
            f"cannot use {setting}: {value}: NATS clients of Dynamo {release} speak no TLS: "
            f"use Dynamo {NATS_TLS.since} or newer (BASE_IMAGE), do without NATS where nothing needs it, or "
            "without TLS: GLM47_NATS_USERNAME, GLM47_NATS_PASSWORD and network policies keep others away"
        )
    elif url and directory is not None and not over_tls:
        yield problem(
            f"cannot use NATS_SERVER: {url}: GLM47_NATS_TLS_DIR is set, which is for TLS: give tls://host:port"
        )
    if (found := ctx.facts.nats_tls) is not None and found.error:
        yield unmet(f"cannot use GLM47_NATS_TLS_DIR: {found.error}")


def _probe(ctx: Context, host: str, port: int, *, tls: bool, own: bool = False) -> NatsProbe:
    who, directory = shown(ctx), ctx.settings.nats_tls_dir
    # What it would take to ask as Dynamo does: a signature, or certificates of Dynamo's own variables.
    signs = who.nothing and bool(set(KEYS) & ctx.native.keys())
    foreign = signs or any(name.startswith("NATS_TLS_") for name in ctx.native)
    return NatsProbe(
        host,
        port,
        who.user,
        who.password,
        who.token,
        knocks=own or not (foreign or (tls and directory is None)),
        tls=tls,
        tls_dir=directory if tls else None,
        own=own,
    )


def nats_gate(ctx: Context, url: str, setting: str) -> Gate:
    """Wait for the first NATS server in `url`.

    Raises ValueError when it has no host or a bad port.
    """
    first = url.split(",")[0].strip()
    parts = urlsplit(first if "//" in first else "nats://" + first)
    if not parts.hostname:
        raise ValueError(url)
    probe = _probe(ctx, parts.hostname, parts.port or 4222, tls=parts.scheme == "tls")
    return Gate("nats-server", probe, ctx.settings.server_timeout, setting)
