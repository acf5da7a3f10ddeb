"""A worker's rank: prefill, decode or aggregated, SGLang or mocker, leader or follower."""

from __future__ import annotations

from dataclasses import dataclass

from entrypoint.errors import ConfigError
from entrypoint.plan import arguments
from entrypoint.plan.context import Context, Part
from entrypoint.plan.endpoint import ANY
from entrypoint.plan.releases import HEALTH_BY_ENDPOINT
from entrypoint.plan.roles import bootstrap, endpoints, engine_env, mocker, servers, sglang, worker_checks
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
from entrypoint.settings.schema import Settings

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
EXTRA = {"prefill": "GLM47_PREFILL_EXTRA_ARGS", "decode": "GLM47_DECODE_EXTRA_ARGS"}
LEADER_LAST = 5.0
"""Seconds by which the leader of a worker on several nodes waits longer than GLM47_HANG_TIMEOUT."""


@dataclass(frozen=True)
class Rank:
    """One rank's final command line and numbers."""

    role: str
    options: arguments.Options
    nnodes: int
    node_rank: int
    system_port: int
    system_setting: str

    @property
    def leader(self) -> bool:
        """Rank 0 registers the worker and answers requests."""
        return self.node_rank == 0


def _extra_texts(s: Settings, role: str) -> list[tuple[str, str]]:
    texts = [("GLM47_EXTRA_ARGS", s.extra_args)]
    if role in EXTRA:
        texts.append((EXTRA[role], s.prefill_extra_args if role == "prefill" else s.decode_extra_args))
    return texts


def extra(s: Settings, role: str) -> arguments.Options:
    """The person's own options alone; the role's own come last and win. ConfigError when they are none."""
    try:
        parsed = [arguments.parse(text, setting) for setting, text in _extra_texts(s, role)]
    except arguments.ArgumentsError as error:
        raise ConfigError(str(error)) from None
    return arguments.Options(tuple(option for options in parsed for option in options))


def options(ctx: Context, role: str, base_gpu: int) -> arguments.Options:
    """Planned options with the person's own over them; the role's own extra arguments win."""
    s = ctx.settings
    mock = s.engine == "mocker"
    result = mocker.options(ctx, role) if mock else sglang.options(ctx, role, base_gpu)
    for setting, text in _extra_texts(s, role):
        try:
            result = result.override(arguments.parse(text, setting))
        except arguments.ArgumentsError as error:
            if str(error) not in ctx.book.problems:
                ctx.book.problems.append(str(error))
    return result


def parts(ctx: Context, cwd: str | None) -> list[Part]:
    """The rank of each worker role in this container; several share its GPUs, one after another."""
    base_gpu = 0
    made, splits = [], []
    for index, role in enumerate(ctx.worker_roles):
        given = options(ctx, role, base_gpu)
        made.append(_part(ctx, role, index, given, cwd))
        if ctx.settings.engine == "sglang":
            splits.append(worker_checks.split_of(ctx, role, given))
            base_gpu += splits[-1].gpus
    if ctx.settings.engine == "sglang":
        worker_checks.check_room(ctx, base_gpu)
        worker_checks.check_given_gpus(ctx, splits)
    return made


def _part(ctx: Context, role: str, index: int, given: arguments.Options, cwd: str | None) -> Part:
    s = ctx.settings
    mock = s.engine == "mocker"
    number = worker_checks.Numbers(ctx, given)
    nnodes = ctx.placement.nnodes if mock else number.get("--nnodes", ctx.placement.nnodes, "nnodes")
    node_rank = (
        ctx.placement.node_rank if mock else number.get("--node-rank", ctx.placement.node_rank, "node_rank")
    )
    system, setting, problems = endpoints.system(s, ctx.native, index)
    ctx.book.problems += problems
    rank = Rank(role, given, nnodes, node_rank, system, setting)
    worker_checks.check_placement(ctx, given)
    if mock and not rank.leader:
        return Part(_idle_follower(ctx, role))
    if not mock:
        worker_checks.check(ctx, role, given)
        if role in sglang.ENGINE_ROLES:
            bootstrap.check(ctx, role, given, nnodes)
    env, secret = engine_env.dynamo(ctx)
    engine_env.mark_questions(ctx, env, engine=not mock)
    if not mock:
        env.update(engine_env.engine(ctx, role))
        if role == "prefill" and nnodes == 1 and "SGLANG_HOST_IP" in env:
            env["SGLANG_HOST_IP"] = bootstrap.announced(ctx, given, nnodes).host
    if rank.leader or not mock:
        ctx.add(env, "DYN_SYSTEM_PORT", str(system))
    if rank.leader and ctx.has(HEALTH_BY_ENDPOINT):
        # Without it /health and /live stay 503 for ever.
        ctx.add(env, "DYN_SYSTEM_USE_ENDPOINT_HEALTH_STATUS", '["generate"]')
    server = Endpoint("system", system, ctx.add(env, "DYN_SYSTEM_HOST", ctx.bind), role, setting)
    ready = _probe(ctx, rank, f"{server.url}/health")
    drain = _drain(ctx, f"{server.url}/metrics") if rank.leader else None
    process = Process(
        name=role,
        role=role,
        argv=(ctx.python, "-m", "dynamo.mocker" if mock else "dynamo.sglang", *given.argv()),
        ready=ready,
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
        hang=None if mock else _hang(ctx, rank, f"{server.url}/metrics"),
    )
    return Part(process, (server, *_ports(ctx, rank)))


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


def _probe(ctx: Context, rank: Rank, health: str) -> Probe:
    if not rank.leader:
        # It registers no endpoint, so its system server never turns healthy: its log tells.
        return LoadedProbe()
    if rank.role != "prefill" or ctx.settings.engine == "mocker":
        return HttpProbe(health)
    told = bootstrap.announced(ctx, rank.options, rank.nnodes)
    port, _, _ = endpoints.bootstrap(ctx.settings, rank.options)
    return PrefillProbe(health, bootstrap.url(told, port), told.source)


def _drain(ctx: Context, metrics: str) -> Drain | None:
    """A worker that frontends of other containers use leaves their list and answers its last requests.

    Where the only frontend is in this container it need not: that one has drained and gone before it.
    """
    withdrawal = _withdrawal(ctx)
    if withdrawal is None or ctx.one_machine:
        return None
    delay = worker_delay(ctx.settings.stop_timeout)
    return Drain(metrics, IN_FLIGHT, delay, ctx.stop.drain("worker"), withdrawal)


def _leader_hold(ctx: Context) -> float:
    """Seconds that a follower goes on: all the time that its leader may drain.

    In a Slurm job it learns of its leader's end, and this only begins there.
    """
    return JOB_LEADER_HOLD if ctx.placement.job is not None else ctx.stop.drain("worker")


def _withdrawal(ctx: Context) -> Withdrawal | None:
    """Where workers are listed; None where nobody but the worker itself can change that."""
    if ctx.discovery == "file":
        return Withdrawal("file", ctx.native.get("DYN_FILE_KV") or engine_env.file_store(ctx))
    if ctx.discovery != "etcd" or ctx.etcd_url is None:
        return None
    try:
        etcd = servers.etcd_endpoint(ctx.etcd_url)
    except ValueError:  # said by the gate
        return None
    return Withdrawal("etcd", etcd, ctx.native.get("ETCD_AUTH_CA"))


def _ports(ctx: Context, rank: Rank) -> list[Endpoint]:
    s = ctx.settings
    if not rank.leader:
        return []
    made = []
    if rank.role == "prefill":
        number, setting, problems = endpoints.bootstrap(s, rank.options)
        ctx.book.problems += problems
        host = (rank.options.value("--host") or ANY).strip("[]")
        made.append(Endpoint("bootstrap", number, host, rank.role, setting))
    if rank.nnodes > 1 and s.engine == "sglang" and len(ctx.worker_roles) == 1:
        number, setting, problems = endpoints.dist_init(s, rank.options)
        ctx.book.problems += problems
        made.append(Endpoint("dist-init", number, ctx.any, rank.role, setting))
    return made


def _idle_follower(ctx: Context, role: str) -> Process:
    """A mocker has one rank; a follower beside it only holds its place, so that layouts can be tried out."""
    ctx.book.notes.append("the mocker has no follower ranks: this one only holds its place (sleep)")
    return Process(
        name=role,
        role=role,
        argv=("sleep", "infinity"),
        ready=AliveProbe(),
        grace=ctx.stop.grace("worker"),
        least=ctx.stop.least("worker"),
        start_timeout=ctx.settings.start_timeout,
    )
