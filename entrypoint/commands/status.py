"""`status` and `probe`: what a running container's health endpoint says, for people and programs."""

from __future__ import annotations

import json
import time
import urllib.parse
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

from entrypoint.errors import CheckFailedError, ConfigError
from entrypoint.plan import table as plan_table
from entrypoint.plan.endpoint import bracketed
from entrypoint.supervise.status.client import get

WATCH_INTERVAL = 2.0
"""Seconds between two looks."""
ENDPOINTS = {"startup": "/startupz", "live": "/livez", "ready": "/readyz"}


def local_url(environ: Mapping[str, str], cwd: Path) -> str:
    """The address of this container's own health endpoint."""
    from entrypoint.load import load_settings
    from entrypoint.plan.roles.endpoints import health

    settings = load_settings(environ, cwd).settings
    return health(settings).url


def remote_url(host: str, environ: Mapping[str, str], cwd: Path) -> str:
    """The address of another container's health endpoint; the port defaults to GLM47_HEALTH_PORT."""
    from entrypoint.load import load_settings

    if "://" not in host:
        host = f"http://{host}"
    parts = urllib.parse.urlsplit(host)
    try:
        port = parts.port or load_settings(environ, cwd).settings.health_port
    except ValueError:
        raise ConfigError(f"cannot ask: {host}: give HOST or HOST:PORT") from None
    if not parts.hostname:
        raise ConfigError(f"cannot ask: {host}: give HOST or HOST:PORT")
    return f"http://{bracketed(parts.hostname)}:{port}"


def token(environ: Mapping[str, str], cwd: Path) -> str | None:
    """What the deployment's health endpoints ask for."""
    from entrypoint.load import load_settings

    secret = load_settings(environ, cwd).settings.status_token
    return secret.get_secret_value() if secret is not None else None


def probe(url: str, kind: str) -> tuple[bool, str]:
    """Ask one of the three probes: whether it passes, and a line that says why not."""
    try:
        code, body = get(url, ENDPOINTS[kind])
    except OSError as error:
        return False, f"cannot ask {url}: {error.strerror or error}: is the runner up?"
    reason = body.get("reason") or "; ".join(body.get("waiting_for") or []) or body.get("state", "")
    return code == 200, f"{kind}: {'yes' if code == 200 else 'no'}" + (f": {reason}" if reason else "")


def show(urls: list[str], style: str, watch: bool, token: str | None = None) -> int:
    """Print the status of every runner; 0 when all of them are ready, else 1."""
    while True:
        with ThreadPoolExecutor(min(32, len(urls))) as pool:
            answers = list(pool.map(lambda url: _ask(url, token), urls))
        if len(urls) == 1 and not answers[0].get("processes") and not watch:
            raise CheckFailedError(f"cannot ask {urls[0]}: {answers[0]['reason']}: is the runner up?")
        if style == "json":
            click.echo(json.dumps(answers[0] if len(answers) == 1 else answers, indent=2))
        else:
            click.echo(table(urls, answers))
        if not watch:
            return 0 if all(a.get("ready") for a in answers) else 1
        time.sleep(WATCH_INTERVAL)


def _ask(url: str, token: str | None) -> dict[str, Any]:
    try:
        code, answer = get(url, "/status", token=token)
        if code != 401:
            return answer
        reason = "it asks for a token: set GLM47_STATUS_TOKEN"
        return {"state": "closed", "ready": False, "reason": reason, "processes": []}
    except OSError as error:
        reason = error.strerror or str(error)
        return {"state": "silent", "ready": False, "reason": reason, "processes": []}


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
    return "\n".join([*plan_table.table(rows), *notes])


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
