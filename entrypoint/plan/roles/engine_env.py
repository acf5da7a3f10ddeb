"""The environment of Dynamo's processes. A variable that the container already has is never overridden."""

from __future__ import annotations

from urllib.parse import urlsplit

from entrypoint.node.facts import NO_PROXY_VARIABLES
from entrypoint.plan import own_questions, profiles
from entrypoint.plan.context import Context
from entrypoint.plan.endpoint import LOOPBACK, bracketed
from entrypoint.plan.releases import EVENTS_OVER_NATS, MARKS_LOG_LINES, STORE_KV
from entrypoint.plan.roles import bootstrap, nats, sglang

CACHES = {
    "FLASHINFER_WORKSPACE_BASE": "flashinfer",
    "TVM_FFI_CACHE_DIR": "tvm-ffi",
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "SGLANG_CACHE_DIR": "sglang",
    "SGLANG_DG_CACHE_DIR": "deep-gemm",
}
"""Where compiled kernels go, by variable: a cold start spends minutes on making them."""

RECORDED = ("TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_TRACE_BUFFER_SIZE")
"""PyTorch's flight recorder: how many collectives it keeps; the name since torch 2.9, and the one before."""
RECORDED_COLLECTIVES = "2000"
RECORDS = (
    "TORCH_NCCL_DEBUG_INFO_PIPE_FILE", "TORCH_FR_DUMP_TEMP_FILE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE",
)  # fmt: skip
"""Where it is asked, and where it answers: with a rank's number after it, and `.pipe` for the first."""

MNNVL = {"NCCL_MNNVL_ENABLE": "1", "NCCL_CUMEM_ENABLE": "1", "MC_FORCE_MNNVL": "1"}
"""Multi-node NVLink for NCCL and Mooncake, as the original deployment set them."""


def dynamo(ctx: Context) -> tuple[dict[str, str], frozenset[str]]:
    """(variables, names of secrets among them) that every Dynamo process gets."""
    s = ctx.settings
    env: dict[str, str] = {}
    secret: set[str] = set()
    ctx.add(env, "PYTHONUNBUFFERED", "1")
    ctx.add(env, "HF_HUB_OFFLINE", "1")
    ctx.add(env, "DYN_NAMESPACE", s.namespace)
    ctx.add(env, store_variable(ctx), store_value(ctx))
    if ctx.discovery == "file":
        ctx.add(env, "DYN_FILE_KV", file_store(ctx))
    address = LOOPBACK if ctx.one_machine else ctx.placement.node_address
    if address is not None:
        # Dynamo puts the port behind it: without brackets an IPv6 address is none.
        ctx.add(env, "DYN_TCP_RPC_HOST", bracketed(address))
    if ctx.etcd_url is not None:
        ctx.add(env, "ETCD_ENDPOINTS", ctx.etcd_url)
    if ctx.nats_url is not None:
        ctx.add(env, "NATS_SERVER", ctx.nats_url)
    elif ctx.has(EVENTS_OVER_NATS):
        ctx.add(env, "DYN_EVENT_PLANE", "zmq")
    for name, value in (("ETCD_AUTH_USERNAME", s.etcd_username), ("NATS_AUTH_USERNAME", s.nats_username)):
        if value is not None:
            ctx.add(env, name, value)
    for name, hidden in (
        ("ETCD_AUTH_PASSWORD", s.etcd_password),
        ("NATS_AUTH_PASSWORD", s.nats_password),
        ("NATS_AUTH_TOKEN", s.nats_token),
    ):
        if hidden is not None:
            ctx.add(env, name, hidden.get_secret_value())
            secret.add(name)
    if (tls := ctx.facts.etcd_tls) is not None:
        # Texts, not paths, whatever Dynamo's own documentation says; and all three of them.
        for name, text in (("CA", tls.authority), ("CLIENT_CERT", tls.certificate), ("CLIENT_KEY", tls.key)):
            ctx.add(env, f"ETCD_AUTH_{name}", text)
            secret.add(f"ETCD_AUTH_{name}")
    for name, path in nats.environment(ctx).items():
        ctx.add(env, name, path)
    env.update(no_proxy(ctx))
    return env, frozenset(secret & env.keys())


def no_proxy(ctx: Context) -> dict[str, str]:
    """Where the environment has a proxy for HTTP: the deployment itself is reached without it.

    SGLang asks prefill's bootstrap server with a library that uses proxies. What others gave stays.
    """
    facts, place = ctx.facts, ctx.placement
    given = [word for word in map(str.strip, facts.no_proxy.split(",")) if word]
    if not facts.proxied or "*" in given:
        return {}
    urls = [url for of in (ctx.etcd_url, ctx.nats_url) if of for url in of.split(",")]
    stores = [urlsplit(url).hostname for url in urls]
    words = dict.fromkeys([*given, "localhost", LOOPBACK, "::1", *place.neighbourhood, *filter(None, stores)])
    return dict.fromkeys(NO_PROXY_VARIABLES, ",".join(words))


def mark_questions(ctx: Context, env: dict[str, str], *, engine: bool) -> None:
    """Have Dynamo's servers show which lines of their logs are about the runner's own questions.

    `engine`: the process runs SGLang.
    """
    if ctx.has(MARKS_LOG_LINES) or "DYN_LOGGING_CONFIG_PATH" in ctx.native:
        return
    if (value := own_questions.log_filter(ctx.native.get("DYN_LOG"), engine)) is not None:
        env["DYN_LOG"] = value


def file_store(ctx: Context) -> str:
    """The directory of the file store."""
    return ctx.native.get("DYN_FILE_KV") or f"{ctx.settings.run_dir}/store"


def store_variable(ctx: Context) -> str:
    """Dynamo's variable for the store: renamed in 1.0."""
    return "DYN_STORE_KV" if ctx.has(STORE_KV) else "DYN_DISCOVERY_BACKEND"


def store_value(ctx: Context) -> str:
    """What that variable says: before 1.0 it is not that for Kubernetes.

    There Dynamo opens a store besides, and one in memory is the only one that asks for no etcd.
    """
    return "mem" if ctx.discovery == "kubernetes" and ctx.has(STORE_KV) else ctx.discovery


def cache(ctx: Context) -> str:
    """The directory of the caches."""
    return ctx.settings.cache_dir or f"{ctx.shared_dir}/cache"


def engine(ctx: Context, role: str) -> dict[str, str]:
    """What an SGLang rank gets besides."""
    s = ctx.settings
    env: dict[str, str] = {}
    base = cache(ctx)
    for name, directory in CACHES.items():
        ctx.add(env, name, f"{base}/{directory}")
    if "HOST_IP" not in ctx.native:
        # Ranks listen there for each other, and prefill workers announce their bootstrap server.
        ctx.add(env, "SGLANG_HOST_IP", bootstrap.own(ctx).host)
    for name in RECORDED:
        ctx.add(env, name, RECORDED_COLLECTIVES)
    for name in RECORDS:
        ctx.add(env, name, f"{s.run_dir}/collectives-")
    if ctx.discovery != "kubernetes":
        # It has been withdrawn and has drained, or its only frontend has: nobody needs time to see it leave.
        ctx.add(env, "DYN_GRACEFUL_SHUTDOWN_GRACE_PERIOD_SECS", "0")
    if s.interface is not None and not ctx.one_machine:
        ctx.add(env, "NCCL_SOCKET_IFNAME", s.interface)
        ctx.add(env, "GLOO_SOCKET_IFNAME", s.interface)
    elif ctx.placement.gloo_interface is not None and "GLOO_SOCKET_IFNAME" not in ctx.native:
        ctx.add(env, "GLOO_SOCKET_IFNAME", ctx.placement.gloo_interface)
    found = sglang.given(ctx, role)
    for name, chosen in found.items():
        if not name.startswith(profiles.OPTION) and name != profiles.MNNVL and chosen is not None:
            ctx.add(env, name, chosen)
    if s.mnnvl == "on" or (s.mnnvl == "auto" and found[profiles.MNNVL] is not None):
        for name, value in MNNVL.items():
            ctx.add(env, name, value)
        ctx.add(env, "NCCL_TIMEOUT", f"{s.dist_timeout:.0f}")
        ctx.add(env, "NCCL_ASYNC_ERROR_HANDLING", "1")
    return env
