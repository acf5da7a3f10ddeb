"""nginx in front of the frontends: one address for clients, whichever frontend answers."""

from __future__ import annotations

from collections.abc import Sequence

from entrypoint.plan.context import Context, Part
from entrypoint.plan.diagnostics import problem
from entrypoint.plan.endpoint import ANY6, bare, bracketed
from entrypoint.plan.roles.executable import START_TIMEOUT, binary
from entrypoint.plan.types import Criticality, HttpProbe, PlannedFile, Process

HEALTH = "/nginx-health"
WORKERS = 4
"""`auto` would start one per core, of which a GB200 node has 144."""


def render(upstreams: Sequence[str], host: str, port: int, directory: str, drain: float) -> str:
    """nginx.conf for the frontends at `upstreams` (``host:port``), which listens on `host` and `port`.

    All its files are below `directory`; `drain` is in seconds.
    """
    servers = "\n".join(f"        server {where} max_fails=1 fail_timeout=5s;" for where in upstreams)
    # As all other servers: IPv4 too where it listens on every address. nginx takes that for two.
    listen = f"{bracketed(host)}:{port}{' ipv6only=off' if bare(host) == ANY6 else ''}"
    temporary = "\n".join(
        f"    {kind}_temp_path {directory}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""\
daemon off;
worker_processes {WORKERS};
pid {directory}/nginx.pid;
error_log stderr warn;
worker_shutdown_timeout {max(1, int(drain))}s;

events {{
    worker_connections 16384;
}}

http {{
{temporary}
    access_log off;
    server_tokens off;
    client_max_body_size 0;

    upstream frontends {{
        least_conn;
{servers}
        keepalive 64;
    }}

    server {{
        listen {listen};

        location = {HEALTH} {{
            return 200;
        }}

        location / {{
            proxy_pass http://frontends;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            # Tokens are passed on as they come, and the next may take long.
            proxy_buffering off;
            proxy_request_buffering off;
            proxy_connect_timeout 5s;
            proxy_read_timeout 1h;
            proxy_send_timeout 1h;
        }}
    }}
}}
"""


def nginx(ctx: Context, frontends: Sequence[str]) -> tuple[Part, PlannedFile]:
    """nginx for the frontends on the nodes `frontends`, and its configuration."""
    s = ctx.settings
    directory = f"{s.run_dir}/nginx"
    drain = ctx.stop.grace("nginx")
    entry, frontend = ctx.api.entry, ctx.api.frontend
    executable, about = binary(ctx, "nginx", s.nginx_bin, "GLM47_NGINX_BIN")
    if not frontend.everywhere and len(frontends) > 1:
        why = (
            f"cannot use {ctx.api.host_setting}: {frontend.host}: {len(frontends)} frontends listen there, "
            "each on its own node, and nginx asks them by their nodes' names: use 0.0.0.0"
        )
        about = (*about, problem(why))
    upstreams = [frontend.where_from_outside(name) for name in frontends]
    config = PlannedFile(
        f"{directory}/nginx.conf", render(upstreams, entry.host, entry.number, directory, drain)
    )
    process = Process(
        name="nginx",
        argv=(executable, "-p", directory, "-c", config.path),
        ready=HttpProbe(f"{entry.url}{HEALTH}"),
        stops_before=("frontend",) if "frontend" in ctx.roles else (),
        # QUIT finishes the requests under way, TERM drops them.
        stop_signal="QUIT",
        grace=drain,
        least=ctx.stop.least("nginx"),
        criticality=Criticality.RESTART,
        start_timeout=START_TIMEOUT,
        silent_timeout=ctx.silent_timeout,
    )
    return Part(process, (entry,), about), config
