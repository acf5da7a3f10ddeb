"""`status` and `probe`: what a running container's health endpoint says, for people and programs."""

from __future__ import annotations

import ipaddress
import json
import re
import time
import urllib.parse
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

from entrypoint.base.printable import clean
from entrypoint.errors import CheckFailedError, ConfigError
from entrypoint.plan import table as plan_table
from entrypoint.plan.endpoint import bracketed
from entrypoint.supervise.status import client, told

WATCH_INTERVAL = 2.0
"""Seconds between two looks."""
_GIVE = "give HOST, HOST:PORT or [ADDRESS]:PORT of a runner's health endpoint, which is plain HTTP"
_IS_IT = "is the runner up, and this its health port?"
_HOST = re.compile(r"[\w.:%-]{1,253}")
"""Letters of host names and addresses."""
SILENT, CLOSED = "silent", "closed"
"""States of runners that say nothing, and that ask for a token."""
ENDPOINTS = {"startup": "/startupz", "live": "/livez", "ready": "/readyz"}


def local_url(environ: Mapping[str, str], cwd: Path) -> str:
    """The address of this container's own health endpoint."""
    from entrypoint.load import load_settings
    from entrypoint.plan.roles.endpoints import health

    settings = load_settings(environ, cwd).settings
    return health(settings).url


def remote_url(host: str, environ: Mapping[str, str], cwd: Path) -> str:
    """The address of another container's health endpoint; the port defaults to GLM47_HEALTH_PORT.

    ConfigError (78) for what is no host.
    """
    from entrypoint.load import load_settings

    try:
        parts = urllib.parse.urlsplit(host if "://" in host else f"http://{_one_host(host)}")
        port = parts.port
    except ValueError:
        raise ConfigError(f"cannot ask: {clean(host)}: {_GIVE}") from None
    # urlsplit leaves line ends and tabs out without a word.
    name = parts.hostname or "" if "".join(host.split()) == host else ""
    if parts.scheme != "http" or parts.username is not None or port == 0 or not _HOST.fullmatch(name):
        raise ConfigError(f"cannot ask: {clean(host)}: {_GIVE}")
    return f"http://{bracketed(name)}:{port or load_settings(environ, cwd).settings.health_port}"


def _one_host(host: str) -> str:
    """An IPv6 address alone gets its brackets."""
    try:
        return f"[{ipaddress.IPv6Address(host)}]"
    except ValueError:
        return host


def token(environ: Mapping[str, str], cwd: Path) -> str | None:
    """What the deployment's health endpoints ask for."""
    from entrypoint.load import load_settings

    secret = load_settings(environ, cwd).settings.status_token
    return secret.get_secret_value() if secret is not None else None


def probe(url: str, kind: str) -> tuple[bool, str]:
    """Ask one of the three probes: whether it passes, and a line that says why not."""
    try:
        code, body = client.get(url, ENDPOINTS[kind])
        state = told.state(body)
    except OSError as error:
        return False, f"cannot ask {url}: {client.why(error)}: {_IS_IT}"
    except ValueError:
        return False, f"cannot ask {url}: it answers {code}, and not as a runner does: {_IS_IT}"
    reason = state["reason"] or "; ".join(state["waiting_for"]) or state["state"]
    return code == 200, f"{kind}: {'yes' if code == 200 else 'no'}" + (f": {reason}" if reason else "")


def show(urls: list[str], style: str, watch: bool, token: str | None = None) -> int:
    """Print the status of every runner; 0 when all of them are ready, else 1."""
    while True:
        with ThreadPoolExecutor(min(32, len(urls))) as pool:
            answers = list(pool.map(lambda url: _ask(url, token), urls))
        if len(urls) == 1 and answers[0]["state"] in (SILENT, CLOSED) and not watch:
            raise CheckFailedError(f"cannot ask {urls[0]}: {answers[0]['reason']}: {_IS_IT}")
        if style == "json":
            click.echo(json.dumps(answers[0] if len(answers) == 1 else answers, indent=2))
        else:
            click.echo(table(urls, answers))
        if not watch:
            return 0 if all(a.get("ready") for a in answers) else 1
        time.sleep(WATCH_INTERVAL)


def _ask(url: str, token: str | None) -> dict[str, Any]:
    try:
        return client.get_status(url, token=token)
    except OSError as error:
        # One of the system's has a number.
        state = CLOSED if isinstance(error, PermissionError) and error.errno is None else SILENT
        return {"state": state, "ready": False, "reason": client.why(error), "processes": []}


HEADER = ("HOST", "PROCESS", "STATE", "READY", "AGE", "RESTARTS", "DOING")


def table(urls: list[str], answers: list[dict[str, Any]]) -> str:
    """Every process of every runner, one line each; then what each runner waits for."""
    rows: list[tuple[str, ...]] = [HEADER]
    notes = []
    for url, answer in zip(urls, answers, strict=True):
        host = urllib.parse.urlsplit(url).netloc
        rank = f" {answer['rank']}/{answer['nnodes']}" if answer.get("nnodes", 1) > 1 else ""
        if not answer["processes"]:
            rows.append((host, "-", answer["state"], "no", "", "", answer.get("reason") or ""))
        for process in answer["processes"]:
            rows.append((
                host, process["name"] + rank, process["state"], "yes" if process["ready"] else "no",
                duration(process["age"]), str(process["restarts"]),
                "" if process["ready"] else process.get("progress") or process.get("why") or "",
            ))  # fmt: skip
        if answer.get("reason"):
            notes.append(f"{host}: {answer['state']}: {answer['reason']}")
        notes += [f"{host}: warning: {w}" for w in answer.get("warnings", [])]
    return "\n".join(map(clean, [*plan_table.table(rows), *notes]))


def duration(seconds: float | None) -> str:
    """Seconds as people read them: 9s, 4m10s, 2h05m."""
    if seconds is None:
        return ""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"
