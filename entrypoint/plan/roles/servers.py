"""Where workers are listed."""

from __future__ import annotations

from entrypoint.plan.context import Context
from entrypoint.plan.roles import engine_env, etcd


def store(ctx: Context) -> tuple[str, str, str | None, str | None] | None:
    """Where workers are listed: `etcd` or `file`, its endpoints or directory, its CA file and certificates.

    None: nobody but the workers can look there.
    """
    if ctx.discovery == "file":
        return "file", engine_env.file_store(ctx), None, None
    if ctx.discovery != "etcd" or ctx.etcd_url is None:
        return None
    try:
        where = ",".join(etcd.endpoints(ctx.etcd_url))
        return "etcd", where, *etcd.trusted(ctx)
    except ValueError:  # said by the gate
        return None
