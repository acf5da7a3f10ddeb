"""Options that the plan decides, or that the runner relies on: a person's own are refused by name. Pure.

Those that it follows instead (TP, nodes, addresses, ports, backends) are read off the final command line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from entrypoint.plan.arguments import ALIASES, Option, Options, canonical
from entrypoint.plan.context import Context
from entrypoint.plan.diagnostics import Diagnostic, problem

ENDS = "it prints something and ends"
NO_FILE = "the runner would not see what the file says; give its options here"
OTHER = "the worker would not answer as this deployment's text model"
OTHERS = (
    "--embedding-worker", "--is-embedding", "--multimodal-processor", "--multimodal-encode-worker",
    "--multimodal-worker", "--image-diffusion-worker", "--video-generation-worker", "--rerank-worker",
    "--encoder-only",
)  # fmt: skip
STORE = "every process of the deployment needs the same store: set GLM47_DISCOVERY"
PLANE = "every process of the deployment needs the same request plane: set DYN_REQUEST_PLANE"
DYNAMO: Mapping[str, str] = {
    "--help": f"{ENDS}: leave it out",
    "-h": f"{ENDS}: leave it out",
    "--version": f"{ENDS}: leave it out",
    "--store-kv": STORE,
    "--discovery-backend": STORE,
    "--request-plane": PLANE,
}
WORKER: Mapping[str, str] = {
    **DYNAMO,
    "--model-path": "the frontend must find the same model: set GLM47_MODEL_PATH",
    "--endpoint": "frontends find the worker by it: set GLM47_NAMESPACE",
}
SGLANG: Mapping[str, str] = {
    **WORKER,
    "--served-model-name": "the frontend is asked for the same name: set GLM47_SERVED_MODEL_NAME",
    "--disaggregation-mode": "the role decides it: set ROLE",
    "--port": "a worker has no API of its own: set GLM47_HTTP_PORT",
    "--attn-dp-size": "the runner reads --dp-size with --enable-dp-attention: set GLM47_DP",
    "--config": f"{NO_FILE}: leave it out",
    "--config-key": f"{NO_FILE}: leave it out",
    "--disagg-config": f"{NO_FILE}: leave it out",
    "--disagg-config-key": f"{NO_FILE}: leave it out",
    **dict.fromkeys(OTHERS, f"{OTHER}: leave it out"),
}  # fmt: skip
MOCKER: Mapping[str, str] = {
    **WORKER,
    "--model-name": "the frontend is asked for the same name: set GLM47_SERVED_MODEL_NAME",
    "--is-prefill-worker": "the role decides it: set ROLE",
    "--is-decode-worker": "the role decides it: set ROLE",
    "--disaggregation-mode": "the role decides it: set ROLE",
}
FRONTEND: Mapping[str, str] = {
    **DYNAMO,
    "--namespace": "workers register in the same one: set GLM47_NAMESPACE",
    "--metrics-prefix": "the runner reads dynamo_frontend_… to know when the last request is answered: "
    "leave it out",
    "--interactive": "it reads from a terminal instead of serving: leave it out",
    "-i": "it reads from a terminal instead of serving: leave it out",
    "--kserve-grpc-server": "it serves no HTTP then: leave it out",
}
FOLLOWED = (
    "--tp-size", "--dp-size", "--ep-size", "--pp-size", "--page-size", "--nnodes", "--node-rank", "--host",
    "--dist-init-addr", "--enable-dp-attention", "--disaggregation-bootstrap-port", "--tool-call-parser",
    "--dyn-tool-call-parser", "--dyn-reasoning-parser", "--prefill-round-robin-balance", "--http-host",
    "--http-port", "--tls-cert-path", "--router-mode", "--router-kv-events", "--kv-events",
    "--moe-a2a-backend", "--deepep-mode",
)  # fmt: skip
"""What the runner reads off a command line, beside what it plans itself."""
SPLITS_CACHES = ("--dcp-size", "--attn-cp-size", "--enable-prefill-cp", "--enable-kv-cache-sharding")
"""On prefill and decode workers they change what of the KV cache a rank has."""


def allowed(
    ctx: Context, planned: Options, extra: Iterable[Option], reserved: Mapping[str, str], role: str = ""
) -> tuple[tuple[Option, ...], tuple[Diagnostic, ...]]:
    """Those of a person's options that may override `planned` ones, and what is wrong with the others.

    Who gives what is planned anyway, as pasted command lines do, changes nothing.
    """
    kept, found = [], []
    for option in extra:
        why = reserved.get(option.canonical)
        own = planned.get(option.canonical)
        if why is not None and own is not None and own.values == option.values:
            continue
        wrong = [*_refused(option, why), *_unclear(option, planned, reserved), *_of_role(ctx, option, role)]
        found += wrong
        kept += [] if wrong else [option]
    return tuple(kept), tuple(found)


def _refused(option: Option, why: str | None) -> Iterator[Diagnostic]:
    if why is not None:
        shown = " ".join(option.values)
        given = f"{option.source} {option.flag}: {shown}" if shown else f"{option.source}: {option.flag}"
        yield problem(f"cannot use {given}: {why}")


def _unclear(option: Option, planned: Options, reserved: Mapping[str, str]) -> Iterator[Diagnostic]:
    """argparse takes any clear beginning for an option, and none of the runner's checks would see it."""
    flag, known = option.flag, {*reserved, *FOLLOWED, *(o.flag for o in planned.items)}
    if flag in known or canonical(flag) != flag or not flag.startswith("--"):
        return
    longer = sorted(name for name in {*known, *ALIASES} if name.startswith(flag))
    if longer:
        yield problem(f"cannot use {option.source}: {flag}: it is short for {longer[0]}: write it out")


def _of_role(ctx: Context, option: Option, role: str) -> Iterator[Diagnostic]:
    if role in ("prefill", "decode") and option.canonical in SPLITS_CACHES:
        yield problem(
            f"cannot use {option.source}: {option.flag}: nobody has measured which prefill and decode "
            f"workers fit together with it: leave it out of {role}"
        )
    if option.canonical != "--base-gpu-id":
        return
    if len(ctx.worker_roles) > 1 and option.source == "GLM47_EXTRA_ARGS":
        yield problem(
            f"cannot use {option.source}: {option.flag}: the workers of this container would share GPUs: "
            "leave it out, or give each its own container"
        )
    job = ctx.placement.job
    if job is not None and job.topology.per_node(job.node.role) > 1:
        yield problem(
            f"cannot use {option.source}: {option.flag}: each worker of this node sees its own GPUs only, "
            "and counts them from 0: leave it out"
        )
