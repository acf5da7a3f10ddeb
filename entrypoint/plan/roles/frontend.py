"""The frontend: OpenAI API, preprocessing, routing."""

from __future__ import annotations

from collections.abc import Iterator

from entrypoint.plan import arguments
from entrypoint.plan.context import Context, Part
from entrypoint.plan.diagnostics import Diagnostic, Diagnostics, note, problem, problems, warning
from entrypoint.plan.endpoint import bracketed
from entrypoint.plan.releases import ALWAYS_DISAGGREGATES, FORGETS_PREFILL, KV_EVENTS, MOCKER_NEEDS_NATS
from entrypoint.plan.roles import engine_env, reserved, shared_node
from entrypoint.plan.roles.endpoints import EXTRA
from entrypoint.plan.types import Criticality, Drain, FrontendProbe, Process, StoreProbe

UNLISTED_TIMEOUT = 10.0
"""Seconds; entries of the file store that nobody refreshes expire after as many."""
DRAIN_VARIABLE = "DYN_HTTP_GRACEFUL_SHUTDOWN_TIMEOUT_SECS"
IN_FLIGHT = "dynamo_frontend_inflight_requests"
SETTINGS = {"--router-mode": "GLM47_ROUTER_MODE"}
"""By planned option, its setting."""
PATIENCE = {"sglang": 15.0, "mocker": 5.0}
"""Seconds for a warm-up request, by engine: real workers took 7 to 12 s to connect (two H100s, NIXL)."""
SETTLE = 1.0
"""Seconds. The mocker of Dynamo 0.8.1 registers 0.1 s before its engine exists; a request in between hangs
for ever and keeps the worker from leaving. On the file store the frontend starts after that."""


def options(ctx: Context) -> tuple[arguments.Options, Diagnostics]:
    """The frontend's options, the person's own included, and why those cannot be used."""
    s = ctx.settings
    words: list[str | tuple[str, str]] = []
    if "DYN_HTTP_HOST" not in ctx.native:
        words.append(("--http-host", bracketed(s.http_host)))
    if "DYN_HTTP_PORT" not in ctx.native:
        words.append(("--http-port", str(ctx.api.frontend.number)))
    if "DYN_ROUTER_MODE" not in ctx.native:
        words.append(("--router-mode", s.router_mode))
    if ctx.prefill_workers and not ctx.has(ALWAYS_DISAGGREGATES):
        words.append("--enforce-disagg")
    plan = arguments.planned(*words)
    try:
        given = arguments.parse(s.frontend_extra_args, EXTRA)
        extra, wrong = reserved.allowed(ctx, plan, given, reserved.FRONTEND)
        return plan.override(extra), wrong
    except arguments.ArgumentsError as error:
        return plan, (problem(str(error)),)


def kv_router(ctx: Context) -> bool:
    """Whether requests are routed by KV caches."""
    given = ctx.frontend_options.value("--router-mode")
    return (given or ctx.native.get("DYN_ROUTER_MODE", ctx.settings.router_mode)) == "kv"


def events_names(ctx: Context) -> tuple[str, str]:
    """(variable, flag) that turn the router's KV events on and off."""
    if ctx.has(KV_EVENTS):
        return "DYN_KV_EVENTS", "--kv-events"
    return "DYN_ROUTER_USE_KV_EVENTS", "--router-kv-events"


def uses_kv_events(ctx: Context) -> bool:
    """Whether its router listens to KV events, which go through NATS: only when a person asks for them."""
    variable, flag = events_names(ctx)
    asked = ctx.frontend_options.get(flag) is not None or ctx.native.get(variable, "").lower() == "true"
    return asked and kv_router(ctx)


def frontend(ctx: Context, cwd: str | None) -> Part:
    """The frontend of this container; `cwd` as the mocker's, which registers the model by a relative name."""
    s = ctx.settings
    env, secret = engine_env.dynamo(ctx)
    engine_env.mark_questions(ctx, env, engine=False)
    url = ctx.api.frontend.url
    drain = _drain(ctx, url, env)
    about = [*problems(ctx.api.problems), *_about_drain(ctx, drain)]
    workers = ctx.worker_roles
    on_file_store = ctx.discovery == "file" and bool(workers)
    store = next((gate.probe for gate in ctx.gates if isinstance(gate.probe, StoreProbe)), None)
    if kv_router(ctx) and not uses_kv_events(ctx):
        variable, flag = events_names(ctx)
        ctx.add(env, variable, "false")
        why = (
            "the KV router predicts caches from its own routing: events need NATS and a worker that "
            f"publishes them; {EXTRA}={flag} turns them on"
        )
        about.append(note(why))
    process = Process(
        name="frontend",
        argv=(ctx.python, "-m", "dynamo.frontend", *ctx.frontend_options.argv()),
        ready=FrontendProbe(
            url,
            s.served_model_name,
            backend=ctx.decode_workers,
            prefill=ctx.prefill_workers,
            warmup=s.warmup,
            workers_port=None if ctx.one_machine else s.health_port,
            further_ports=shared_node.runners_ports(ctx),
            layouts=ctx.prefill_workers > 0 and s.engine == "sglang" and not s.allow_wrong_layout,
            settle=0.0 if on_file_store or s.engine != "mocker" or not ctx.has(MOCKER_NEEDS_NATS) else SETTLE,
            patience=PATIENCE[s.engine],
            store=store,
            lists_all=ctx.discovery != "file",
        ),
        settings=ctx.frontend_options.settings(SETTINGS),
        env=env,
        secret_env=secret,
        unset_env=("DYN_SYSTEM_PORT",),
        cwd=cwd,
        # A frontend that is up before the worker can read a half-written key of the file store and never list
        # the model, so there it waits: for workers elsewhere at the gate.
        needs=(*ctx.servers, *(workers if on_file_store else ())),
        stops_before=() if on_file_store else workers,
        drain=drain,
        grace=ctx.stop.grace("frontend"),
        least=ctx.stop.least("frontend"),
        criticality=Criticality.RESTART,
        start_timeout=s.start_timeout,
        silent_timeout=ctx.silent_timeout,
        unlisted_timeout=UNLISTED_TIMEOUT if _can_miss(ctx) else None,
    )
    return Part(process, (ctx.api.frontend,), tuple(about))


def _can_miss(ctx: Context) -> bool:
    """Whether it may never list what is registered, until it is started anew."""
    return ctx.discovery == "file" or (ctx.prefill_workers > 0 and ctx.has(FORGETS_PREFILL))


def _drain(ctx: Context, url: str, env: dict[str, str]) -> Drain:
    """Requests in flight are waited for before the stop signal.

    From the signal on, Dynamo's frontend answers new requests with 500 and sleeps its own drain time out,
    even when it is idle: so that is set to its least.
    """
    if DRAIN_VARIABLE not in ctx.native:
        env[DRAIN_VARIABLE] = "1"
    return Drain(f"{url}/metrics", IN_FLIGHT, ctx.settings.drain_delay, ctx.stop.drain("frontend"))


def _about_drain(ctx: Context, drain: Drain) -> Iterator[Diagnostic]:
    asked, grace = ctx.native.get(DRAIN_VARIABLE), ctx.stop.grace("frontend")
    if asked is not None and (not asked.isdigit() or int(asked) >= grace):
        yield warning(
            f"{DRAIN_VARIABLE}={asked}: the frontend is killed {grace:g} s after "
            "its stop signal, since its requests have been waited for before; unset it"
        )
    if drain.delay > drain.timeout:
        yield problem(
            f"cannot use GLM47_DRAIN_DELAY: {drain.delay:g}: GLM47_STOP_TIMEOUT "
            f"{ctx.settings.stop_timeout:g} leaves the frontend {drain.timeout:g} s to drain: "
            "lower it, or raise GLM47_STOP_TIMEOUT"
        )
