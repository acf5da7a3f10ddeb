"""Where those who depend on prefill workers learn of their bootstrap servers."""

from __future__ import annotations

from entrypoint.plan.context import Context
from entrypoint.plan.roles import engine_env, servers
from entrypoint.plan.types import Announcements


def announcements(ctx: Context) -> Announcements | None:
    """Dynamo's store, for a frontend of prefill workers and a decode worker; None: nothing is told there."""
    waits = ("frontend" in ctx.roles and ctx.prefill_workers) or "decode" in ctx.roles
    if not waits or ctx.settings.engine == "mocker":  # its bootstrap server speaks a protocol of its own
        return None
    namespace = ctx.native.get("DYN_NAMESPACE", ctx.settings.namespace)
    if ctx.discovery == "file":
        return Announcements("file", engine_env.file_store(ctx), namespace)
    if ctx.discovery != "etcd" or ctx.etcd_url is None:
        return None
    try:
        etcd = servers.etcd_endpoint(ctx.etcd_url)
    except ValueError:  # said by the gate
        return None
    return Announcements("etcd", etcd, namespace, ctx.native.get("ETCD_AUTH_CA"))
