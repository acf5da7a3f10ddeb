"""A worker's rank: prefill, decode or aggregated, SGLang or mocker, leader or follower."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from entrypoint.plan.context import Context, Part
from entrypoint.plan.diagnostics import Diagnostic, Diagnostics, note
from entrypoint.plan.releases import HEALTH_BY_ENDPOINT
from entrypoint.plan.roles import bootstrap, engine_env, servers, sglang, shared_node, worker_checks
from entrypoint.plan.roles.rank import Rank
from entrypoint.plan.stop_budget import JOB_LEADER_HOLD, LOADING_GRACE, worker_delay
from entrypoint.plan.types import (
    AliveProbe,
    Drain,
    Endpoint,
    HangWatch,
    HttpProbe,
    LoadedProbe,
    PrefillProbe,
    Probe,
    Process,
    Withdrawal,
)

IN_FLIGHT = "dynamo_component_inflight_requests"
BEGUN = "dynamo_component_requests_total"
ANSWERED = "dynamo_component_response_bytes_total"
GENERATE = 'dynamo_endpoint="generate"'
"""What Dynamo (0.8.1 to 1.6.1) counts of a worker's requests, and the label of what answers them."""
STOP_SIGNAL = "INT"
"""Of `dynamo.sglang`. In Dynamo 0.8 and 0.9 INT and TERM do the same until SGLang, at the first request, puts
a handler of its own in TERM's place: that one drains for ever if a scheduler is dead, leaves Dynamo's list as
it is and ends with a KILL of its own. From 1.0 on both are Dynamo's (dynamo/sglang/main.py and shutdown.py,
sglang/srt/managers/tokenizer_manager.py)."""
NO_FOLLOWERS = "the mocker has no follower ranks: this one only holds its place (sleep)"
LEADER_LAST = 5.0
"""Seconds by which the leader of a worker on several nodes waits longer than GLM47_HANG_TIMEOUT."""


def parts(ctx: Context, ranks: Sequence[Rank], cwd: str | None) -> tuple[list[Part], Diagnostics]:
    """What each of this container's ranks adds to the plan, and what is to be said of them together."""
    made = [_part(ctx, rank, cwd) for rank in ranks]
    if ctx.settings.engine != "sglang":
        return made, ()
    splits = [rank.split for rank in ranks]
    together = worker_checks.check_room(ctx, sum(split.gpus for split in splits))
    return made, (*together, *worker_checks.check_given_gpus(ctx, splits))


def _checks(ctx: Context, rank: Rank) -> Iterator[Diagnostic]:
    yield from rank.diagnostics
    yield from worker_checks.check_placement(ctx, rank)
    if not rank.mock:
        yield from worker_checks.check(ctx, rank)
        if rank.role in sglang.ENGINE_ROLES:
            yield from bootstrap.check(ctx, rank.role, rank.options, rank.nnodes, rank.announced)


def _part(ctx: Context, rank: Rank, cwd: str | None) -> Part:
    s, role, mock = ctx.settings, rank.role, rank.mock
    about = tuple(_checks(ctx, rank))
    if mock and not rank.leader:
        return Part(_idle_follower(ctx, role), diagnostics=(*about, note(NO_FOLLOWERS)))
    env, secret = engine_env.dynamo(ctx)
    engine_env.mark_questions(ctx, env, engine=not mock)
    if not mock:
        env.update(engine_env.engine(ctx, role))
        if (devices := shared_node.devices(ctx, rank.split.gpus)) is not None:
            env[shared_node.DEVICES] = devices
        if role == "prefill" and rank.nnodes == 1 and "SGLANG_HOST_IP" in env:
            env["SGLANG_HOST_IP"] = rank.announced.host
    if rank.leader or not mock:
        ctx.add(env, "DYN_SYSTEM_PORT", str(rank.system.number))
    if rank.leader and (mock or ctx.has(HEALTH_BY_ENDPOINT)):
        # Without it the mocker's /health and /live stay 503 for ever, in every release.
        ctx.add(env, "DYN_SYSTEM_USE_ENDPOINT_HEALTH_STATUS", '["generate"]')
    ctx.add(env, "DYN_SYSTEM_HOST", rank.system.host)
    metrics = f"{rank.system.url}/metrics"
    drain = _drain(ctx, metrics) if rank.leader else None
    process = Process(
        name=role,
        argv=(ctx.python, "-m", "dynamo.mocker" if mock else "dynamo.sglang", *rank.options.argv()),
        ready=_probe(rank),
        settings=rank.options.settings({} if mock else sglang.settings(ctx, role)),
        env=env,
        secret_env=secret,
        cwd=cwd,
        needs=ctx.servers,
        drain=drain,
        leader_hold=None if rank.leader else _leader_hold(ctx),
        stop_signal="TERM" if mock else STOP_SIGNAL,
        grace=ctx.stop.grace("worker"),
        least=ctx.stop.least("worker"),
        loading_grace=None if mock else min(LOADING_GRACE, ctx.stop.grace("worker")),
        start_timeout=s.start_timeout,
        stall_timeout=None if mock else s.stall_timeout,
        log_dialect=None if mock else "sglang",
        vital=() if mock else sglang.VITAL,
        hang=None if mock else _hang(ctx, rank, metrics),
        silent_timeout=ctx.silent_timeout if mock else None,
    )
    return Part(process, (rank.system, *_ports(ctx, rank)), about)


def _hang(ctx: Context, rank: Rank, metrics: str) -> HangWatch | None:
    s = ctx.settings
    if not s.hang_unready and not s.hang_timeout:
        return None
    # A leader's requests also hang when another rank does: that one's runner sees more, and speaks first.
    later = LEADER_LAST if rank.leader and rank.nnodes > 1 and s.hang_timeout else 0.0
    return HangWatch(
        unready=s.hang_unready,
        timeout=s.hang_timeout + later,
        metrics=metrics if rank.leader else None,
        in_flight=IN_FLIGHT,
        begun=BEGUN,
        answered=ANSWERED,
        labelled=GENERATE,
        waits_for_others=rank.role != "aggregated",
    )


def _probe(rank: Rank) -> Probe:
    health = f"{rank.system.url}/health"
    if not rank.leader:
        # It registers no endpoint, so its system server never turns healthy: its log tells.
        return LoadedProbe()
    if rank.role != "prefill" or rank.mock:
        return HttpProbe(health)
    told = rank.announced
    return PrefillProbe(health, bootstrap.url(told, rank.bootstrap.number), told.source)


def _drain(ctx: Context, metrics: str) -> Drain | None:
    """A worker that frontends of other containers use leaves their list and answers its last requests.

    Where the only frontend is in this container it need not: that one has drained and gone before it.
    Kubernetes takes it off by itself: a pod that is deleted or not ready is on none of its lists.
    """
    withdrawal = _withdrawal(ctx)
    if ctx.one_machine or (withdrawal is None and ctx.discovery != "kubernetes"):
        return None
    delay = worker_delay(ctx.settings.stop_timeout)
    return Drain(metrics, IN_FLIGHT, delay, ctx.stop.drain("worker"), withdrawal)


def _leader_hold(ctx: Context) -> float:
    """Seconds that a follower goes on: all the time that its leader may drain.

    Where runners ask each other it learns of its leader's end, and this only begins there.
    """
    place = ctx.placement
    return JOB_LEADER_HOLD if place.job is not None or place.group else ctx.stop.drain("worker")


def _withdrawal(ctx: Context) -> Withdrawal | None:
    """Where workers are listed; None where nobody but the worker itself can change that."""
    found = servers.store(ctx)
    return None if found is None else Withdrawal(*found)


def _ports(ctx: Context, rank: Rank) -> list[Endpoint]:
    made = []
    if rank.leader and rank.role == "prefill":
        made.append(rank.bootstrap)
    if rank.leader and rank.nnodes > 1 and not rank.mock and len(ctx.worker_roles) == 1:
        made.append(rank.dist_init)
    return made


def _idle_follower(ctx: Context, role: str) -> Process:
    """A mocker has one rank; a follower beside it only holds its place, so that layouts can be tried out."""
    return Process(
        name=role,
        argv=("sleep", "infinity"),
        ready=AliveProbe(),
        grace=ctx.stop.grace("worker"),
        least=ctx.stop.least("worker"),
        start_timeout=ctx.settings.start_timeout,
    )
