"""etcd and NATS of this deployment, and what waits for those that run elsewhere."""

from __future__ import annotations

from urllib.parse import urlsplit

from entrypoint.plan.context import Context, Part
from entrypoint.plan.diagnostics import Diagnostics, unmet, warning
from entrypoint.plan.endpoint import LOOPBACK, bracketed
from entrypoint.plan.roles import engine_env
from entrypoint.plan.types import Criticality, Data, Endpoint, Gate, HttpProbe, NatsProbe, Process

START_TIMEOUT = 60.0
"""Seconds a server of our own gets from spawn to its first answer; both take well under one."""


def etcd(ctx: Context) -> Part:
    """A single-member etcd. Peers never connect, so its peer port stays on the loopback."""
    s = ctx.settings
    client = Endpoint("etcd", s.etcd_port, ctx.bind, "etcd", "GLM47_ETCD_PORT")
    peer = Endpoint("etcd-peer", s.etcd_peer_port, LOOPBACK, "etcd", "GLM47_ETCD_PEER_PORT")
    host = ctx.placement.head_address or ctx.placement.node_address
    advertised = client.url if ctx.one_machine or host is None else client.url_from_outside(host)
    executable, about = binary(ctx, "etcd", s.etcd_bin, "GLM47_ETCD_BIN")
    data = Data(s.etcd_data_dir or s.run_dir + "/etcd", "GLM47_ETCD_DATA_DIR")
    argv = (
        executable,
        "--name=glm47",
        f"--data-dir={data.directory}",
        f"--listen-client-urls=http://{bracketed(client.host)}:{client.number}",
        f"--advertise-client-urls={advertised}",
        f"--listen-peer-urls={peer.url}",
        f"--initial-advertise-peer-urls={peer.url}",
        f"--initial-cluster=glm47={peer.url}",
        # Alone it elects itself all the same, after a random wait of up to this: 0.1 s, and not 1.1.
        "--heartbeat-interval=10",
        "--election-timeout=100",
    )
    process = _process(ctx, "etcd", argv, HttpProbe(f"{client.url}/health"), data)
    return Part(process, (client, peer), about)


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
    process = _process(ctx, "nats", argv, NatsProbe(LOOPBACK, s.nats_port), data)
    return Part(process, (client, monitor), about)


def _process(
    ctx: Context, name: str, argv: tuple[str, ...], ready: HttpProbe | NatsProbe, data: Data
) -> Process:
    return Process(
        name=name,
        argv=argv,
        ready=ready,
        grace=ctx.stop.grace("server"),
        least=ctx.stop.least("server"),
        criticality=Criticality.RESTART,
        start_timeout=START_TIMEOUT,
        silent_timeout=ctx.silent_timeout,
        data=data,
    )


def etcd_endpoint(url: str) -> str:
    """The first etcd endpoint in `url`, without user and password: a plan is printed.

    Raises ValueError when it has no host or a bad port.
    """
    first = url.split(",")[0].strip()
    parts = urlsplit(first if "//" in first else "http://" + first)
    if not parts.hostname:
        raise ValueError(url)
    return f"{parts.scheme}://{bracketed(parts.hostname)}:{parts.port or 2379}"


def store(ctx: Context) -> tuple[str, str, str | None] | None:
    """Where workers are listed: `etcd` or `file`, its endpoint or directory, and etcd's CA file, if any.

    None: nobody but the workers can look there.
    """
    if ctx.discovery == "file":
        return "file", engine_env.file_store(ctx), None
    if ctx.discovery != "etcd" or ctx.etcd_url is None:
        return None
    try:
        return "etcd", etcd_endpoint(ctx.etcd_url), ctx.native.get("ETCD_AUTH_CA")
    except ValueError:  # said by the gate
        return None


def etcd_gate(url: str, setting: str, timeout: float, ca_file: str | None) -> Gate:
    """Wait up to `timeout` seconds for the first etcd endpoint in `url`.

    Raises ValueError when it has no host or a bad port.
    """
    return Gate("etcd-server", HttpProbe(f"{etcd_endpoint(url)}/health", ca_file), timeout, setting)


def nats_gate(url: str, setting: str, timeout: float) -> Gate:
    """Wait up to `timeout` seconds for the first NATS server in `url`.

    Raises ValueError when it has no host or a bad port.
    """
    first = url.split(",")[0].strip()
    parts = urlsplit(first if "//" in first else "nats://" + first)
    if not parts.hostname:
        raise ValueError(url)
    return Gate("nats-server", NatsProbe(parts.hostname, parts.port or 4222), timeout, setting)


def binary(ctx: Context, name: str, given: str | None, setting: str) -> tuple[str, Diagnostics]:
    """A server's executable; its bare name where there is none, with what to do about that."""
    found = given or ctx.facts.engine.binaries.get(name)
    if found is None:
        why = f"cannot find {name}: it is not on PATH nor beside GLM47_PYTHON: set {setting}"
        return name, (unmet(why),)
    return found, ()
