"""What the servers of a deployment have in common: an executable that is found, and a restart in place."""

from __future__ import annotations

from entrypoint.plan.context import Context
from entrypoint.plan.diagnostics import Diagnostics, unmet
from entrypoint.plan.types import Criticality, Data, HttpProbe, NatsProbe, Process

START_TIMEOUT = 60.0
"""Seconds a server of our own gets from spawn to its first answer; both take well under one."""


def server(
    ctx: Context,
    name: str,
    argv: tuple[str, ...],
    ready: HttpProbe | NatsProbe,
    data: Data,
    start_timeout: float = START_TIMEOUT,
) -> Process:
    """etcd's or NATS' process; `start_timeout` in seconds."""
    return Process(
        name=name,
        argv=argv,
        ready=ready,
        grace=ctx.stop.grace("server"),
        least=ctx.stop.least("server"),
        criticality=Criticality.RESTART,
        start_timeout=start_timeout,
        silent_timeout=ctx.silent_timeout,
        data=data,
    )


def binary(ctx: Context, name: str, given: str | None, setting: str) -> tuple[str, Diagnostics]:
    """A server's executable; its bare name where there is none, with what to do about that."""
    found = given or ctx.facts.engine.binaries.get(name)
    if found is None:
        why = f"cannot find {name}: it is not on PATH nor beside GLM47_PYTHON: set {setting}"
        return name, (unmet(why),)
    return found, ()
