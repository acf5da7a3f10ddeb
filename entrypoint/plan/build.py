"""Settings, placement and facts to a plan. Pure: no file, process, clock or environment is touched.

Everything that is wrong is collected and raised as one `ConfigError`, so that one start reports it all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from entrypoint.errors import ConfigError
from entrypoint.node.facts import Facts
from entrypoint.node.placement import WORKER_ROLES, Placement
from entrypoint.plan import file_edits as edits
from entrypoint.plan import releases
from entrypoint.plan.context import Context, Part
from entrypoint.plan.deployment import decide
from entrypoint.plan.diagnostics import Diagnostic, Level, note, problems, texts, unmet, warning
from entrypoint.plan.roles import engine_env, etcd, frontend, job, kv_layout, mocker, nats, worker
from entrypoint.plan.roles.announcements import announcements
from entrypoint.plan.roles.endpoints import health
from entrypoint.plan.roles.rank import resolve_ranks
from entrypoint.plan.types import Endpoint, Plan, Process
from entrypoint.settings.origin import Origin
from entrypoint.settings.schema import Settings


def build_plan(
    settings: Settings,
    origins: Mapping[str, Origin],
    placement: Placement,
    facts: Facts,
    native: Mapping[str, str],
) -> Plan:
    """The plan of one container; raises ConfigError with every problem found.

    `native` are the variables of the container's environment that Dynamo, SGLang, NCCL and the like define.
    An empty one counts as unset: that is how Compose passes a variable that nobody gave.
    """
    native = {name: value for name, value in native.items() if value}
    ctx = decide(settings, placement, facts, native)
    uses_model = bool(set(ctx.roles) & {*WORKER_ROLES, "frontend"})
    cwd = mocker.directory(ctx) if settings.engine == "mocker" and uses_model else None
    ranks = resolve_ranks(ctx)
    workers, about_workers = worker.parts(ctx, ranks, cwd)
    layouts, about_layouts = kv_layout.layouts(ctx, ranks)
    in_front = job.nginx(ctx)
    parts: list[Part] = [
        *([etcd.etcd(ctx)] if "etcd" in ctx.roles else []),
        *([nats.nats(ctx)] if "nats" in ctx.roles else []),
        *workers,
        *([frontend.frontend(ctx, cwd)] if "frontend" in ctx.roles else []),
        *([in_front[0]] if in_front is not None else []),
    ]
    processes = tuple(part.process for part in parts)
    files = (in_front[1],) if in_front is not None else ()
    ports = (*(port for part in parts for port in part.ports), health(ctx.settings))
    job_part, about_job = job.job(ctx, tuple(process.name for process in processes), files, ports)
    found = [
        *_about_place(placement, facts, settings.engine == "sglang" and bool(ctx.worker_roles)),
        *ctx.diagnostics,
        *(one for part in parts for one in part.diagnostics),
        *about_workers,
        *about_layouts,
        *about_job,
        *problems(port_conflicts(ports)),
        *_engine_found(ctx, processes),
        *(_model_notes(ctx) if uses_model else ()),
    ]
    if wrong := texts(found, Level.PROBLEM):
        raise ConfigError(wrong)
    return Plan(
        roles=ctx.roles,
        processes=processes,
        gates=ctx.gates,
        file_edits=edits.file_edits(ctx, ranks) if uses_model else (),
        ports=ports,
        settings=dict(origins),
        warnings=texts(found, Level.WARNING),
        notes=texts(found, Level.NOTE),
        model_source=settings.model_path,
        model_path=ctx.model_path,
        served_model_name=settings.served_model_name,
        run_dir=settings.run_dir,
        log_dir=settings.log_dir,
        log_format=settings.log_format,
        stop_timeout=settings.stop_timeout,
        max_restarts=settings.max_restarts,
        termination_log=settings.termination_log,
        source_patch=edits.source_patch(ctx),
        flashinfer=edits.flashinfer(ctx, processes),
        fresh_dirs=_fresh_dirs(ctx, processes),
        needs_model=uses_model,
        needs_weights=settings.engine == "sglang" and bool(ctx.worker_roles),
        model_error=facts.model.error if uses_model else None,
        bos_token_id=facts.model.bos_token_id,
        unmet=texts(found, Level.UNMET),
        rank=placement.node_rank,
        nnodes=placement.nnodes,
        job=job_part,
        announcements=announcements(ctx),
        layouts=layouts,
        cache_dir=engine_env.cache(ctx),
        secret_files=tuple(filter(None, [nats.asks(ctx)] if "nats" in ctx.roles else [])),
        status_token=settings.status_token.get_secret_value() if settings.status_token is not None else None,
    )


def _fresh_dirs(ctx: Context, processes: tuple[Process, ...]) -> tuple[str, ...]:
    """Our own file store: an earlier run's worker stays in it for 10 s, and requests go to it."""
    if "DYN_FILE_KV" in ctx.native or not any("DYN_FILE_KV" in p.env for p in processes):
        return ()
    return (engine_env.file_store(ctx),)


def port_conflicts(ports: Sequence[Endpoint]) -> list[str]:
    """One line for each pair of ports that cannot both be bound."""
    found = []
    for index, one in enumerate(ports):
        for other in ports[index + 1 :]:
            if one.clashes(other):
                found.append(
                    f"cannot use port {one.number} twice: {one.setting} ({one.process}) and "
                    f"{other.setting} ({other.process}): change one of them"
                )
    return found


def _about_place(placement: Placement, facts: Facts, uses_sglang: bool) -> Iterator[Diagnostic]:
    yield from problems(placement.problems)
    yield from map(unmet, placement.unmet)
    yield from map(warning, placement.warnings)
    if placement.job is not None:
        yield from map(warning, placement.job.topology.warnings)
    engine = facts.engine
    installed = {"sglang": engine.sglang, "dynamo": engine.dynamo, "flashinfer": engine.flashinfer}
    yield from map(warning, releases.unlooked_at(installed))
    if uses_sglang and (gains := releases.lacks(installed)) is not None:
        yield note(gains)


def _model_notes(ctx: Context) -> Iterator[Diagnostic]:
    if not ctx.facts.model.config_read:
        yield note(
            "the model's config.json was not read: the published numbers of GLM-4.7 were used for every check"
        )


def _engine_found(ctx: Context, processes: tuple[Process, ...]) -> Iterator[Diagnostic]:
    engine = ctx.facts.engine
    if not any(p.argv[0] == ctx.python for p in processes):
        return
    if engine.python is None:
        yield unmet(
            "cannot find the engine's interpreter: no Python with dynamo here: "
            "set GLM47_PYTHON to the one that has it"
        )
    elif engine.dynamo is None:
        yield unmet(f"cannot use GLM47_PYTHON: {engine.python}: it has no dynamo: name one that has")
    if engine.dynamo is None:
        yield note(f"the installed Dynamo is not known: planned for {releases.PINNED['dynamo']}")
    needs_sglang = ctx.settings.engine == "sglang" and bool(ctx.worker_roles)
    if needs_sglang and engine.dynamo is not None and engine.sglang is None:
        yield unmet(f"cannot use GLM47_PYTHON: {engine.python}: it has no sglang: name one that has")
