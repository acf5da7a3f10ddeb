"""NATS of this deployment, and what waits for one that runs elsewhere; where workers are listed."""

from __future__ import annotations

from urllib.parse import urlsplit

from entrypoint.plan.context import Context, Part
from entrypoint.plan.diagnostics import warning
from entrypoint.plan.endpoint import LOOPBACK
from entrypoint.plan.roles import engine_env, etcd
from entrypoint.plan.roles.executable import binary, server
from entrypoint.plan.types import Data, Endpoint, Gate, NatsProbe


def nats(ctx: Context) -> Part:
    """A NATS server with JetStream."""
    s = ctx.settings
    client = Endpoint("nats", s.nats_port, ctx.bind, "nats", "GLM47_NATS_PORT")
    monitor = Endpoint("nats-monitor", s.nats_monitor_port, ctx.bind, "nats", "GLM47_NATS_MONITOR_PORT")
    executable, about = binary(ctx, "nats-server", s.nats_bin, "GLM47_NATS_BIN")
    data = Data(s.nats_data_dir or s.run_dir + "/nats", "GLM47_NATS_DATA_DIR")
    argv = (
        executable,
        "--jetstream",
        "--store_dir",
        data.directory,
        "--addr",
        client.host,
        "--port",
        str(client.number),
        "--http_port",
        str(monitor.number),
    )
    if s.nats_username or s.nats_password or s.nats_token:
        why = (
            "the NATS server of this container asks nobody for GLM47_NATS_USERNAME or GLM47_NATS_TOKEN: "
            "they are only given to Dynamo"
        )
        about = (*about, warning(why))
    process = server(ctx, "nats", argv, NatsProbe(LOOPBACK, s.nats_port), data)
    return Part(process, (client, monitor), about)


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


def nats_gate(url: str, setting: str, timeout: float) -> Gate:
    """Wait up to `timeout` seconds for the first NATS server in `url`.

    Raises ValueError when it has no host or a bad port.
    """
    first = url.split(",")[0].strip()
    parts = urlsplit(first if "//" in first else "nats://" + first)
    if not parts.hostname:
        raise ValueError(url)
    return Gate("nats-server", NatsProbe(parts.hostname, parts.port or 4222), timeout, setting)
