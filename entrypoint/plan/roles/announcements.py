"""Where those who depend on prefill workers learn of their bootstrap servers."""

from __future__ import annotations

from entrypoint.plan.context import Context
from entrypoint.plan.roles import servers
from entrypoint.plan.types import Announcements


def announcements(ctx: Context) -> Announcements | None:
    """Dynamo's store, for a frontend of prefill workers and a decode worker; None: nothing is told there."""
    waits = ("frontend" in ctx.roles and ctx.prefill_workers) or "decode" in ctx.roles
    if not waits or ctx.settings.engine == "mocker":  # its bootstrap server speaks a protocol of its own
        return None
    namespace = ctx.native.get("DYN_NAMESPACE", ctx.settings.namespace)
    if (found := servers.store(ctx)) is None:
        return None
    kind, where, ca_file, tls_dir = found
    return Announcements(kind, where, namespace, ca_file, tls_dir)
