"""Decisions for the whole container: its roles, its store, its etcd and NATS, the model's path. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from entrypoint.node.facts import Facts
from entrypoint.node.placement import ROLE_ORDER, WORKER_ROLES, Placement
from entrypoint.plan import file_edits
from entrypoint.plan.context import Context
from entrypoint.plan.diagnostics import Diagnostic, Diagnostics, note, problem, warning
from entrypoint.plan.endpoint import ANY6, LOOPBACK, bracketed
from entrypoint.plan.releases import MOCKER_NEEDS_NATS
from entrypoint.plan.roles import endpoints, engine_env, etcd, frontend, mocker, nats
from entrypoint.plan.stop_budget import shares
from entrypoint.plan.types import Gate, StoreProbe
from entrypoint.settings.schema import Settings

STORES = ("etcd", "file", "mem", "kubernetes")
KINDS = {"nginx": "nginx", "frontend": "frontend", "etcd": "server", "nats": "server"}
"""By role, its step of a stop; the other roles are workers."""


def decide(s: Settings, placement: Placement, facts: Facts, native: Mapping[str, str]) -> Context:
    """Everything the roles share, with what is to be said of it."""
    single = placement.one_machine
    wanted = {"aggregated", "frontend"} if single else set(placement.roles)
    roles = tuple(r for r in ROLE_ORDER if r in wanted)
    s = _hosts(s, placement)
    discovery, about_store = _discovery(s, placement, roles, native)
    job = placement.job
    base = Context(
        settings=s,
        placement=placement,
        facts=facts,
        native=native,
        roles=roles,
        discovery=discovery,
        model_path=s.model_path,
        stop=shares(s.stop_timeout, ()),
        api=endpoints.api(s, native, behind_nginx=placement.behind_nginx),
        prefill_workers=max(s.prefill_workers, 1 if "prefill" in roles else 0),
        decode_workers=max(s.decode_workers if job is None else job.topology.decode_workers, 1),
        diagnostics=(*_check_roles(s, placement, wanted), *about_store),
    )
    model_path, about_name = _model_path(base)
    base = replace(base, model_path=model_path, diagnostics=(*base.diagnostics, *about_name))
    options, about_options = frontend.options(base)
    said = about_options if "frontend" in roles else ()
    base = replace(base, frontend_options=options, diagnostics=(*base.diagnostics, *said))
    uses_dynamo = bool(set(roles) & {*WORKER_ROLES, "frontend"})
    store = _etcd(base) if uses_dynamo and base.discovery == "etcd" else Server()
    needed, why = _needs_nats(base) if uses_dynamo else (False, ())
    bus = _nats(base) if needed else Server()
    gates = [gate for gate in (store.gate, bus.gate) if gate is not None]
    if base.discovery == "file" and "frontend" in roles and not base.worker_roles:
        gates.append(_store_gate(base))
    roles = _with(_with(roles, "etcd", store.ours), "nats", bus.ours)
    ctx = replace(
        base,
        roles=roles,
        etcd_url=store.url,
        nats_url=bus.url,
        gates=tuple(gates),
        stop=shares(s.stop_timeout, {KINDS.get(r, "worker") for r in roles}, worker_drains=not single),
        diagnostics=(
            *base.diagnostics,
            *etcd.about_tls(base),
            *etcd.about_list(store.url),
            *store.diagnostics,
            *why,
            *bus.diagnostics,
        ),
    )
    return replace(ctx, diagnostics=(*ctx.diagnostics, *nats.about(ctx)))


@dataclass(frozen=True)
class Server:
    """Where etcd or NATS is for this container."""

    url: str | None = None
    ours: bool = False
    """This container must run it itself, although nobody named its role."""
    gate: Gate | None = None
    diagnostics: Diagnostics = ()


def _hosts(s: Settings, placement: Placement) -> Settings:
    """`s`, listening for IPv6 too where this node has such an address, unless somebody said where."""
    if ":" not in (placement.node_address or ""):
        return s
    unset = [name for name in ("http_host", "health_host") if name not in s.model_fields_set]
    return s.model_copy(update=dict.fromkeys(unset, ANY6))


def _with(roles: tuple[str, ...], role: str, add: bool) -> tuple[str, ...]:
    return tuple(r for r in ROLE_ORDER if r in roles or (add and r == role))


def _check_roles(s: Settings, placement: Placement, wanted: set[str]) -> Iterator[Diagnostic]:
    roles = placement.roles
    if placement.one_machine and placement.nnodes > 1:
        yield problem(
            f"cannot use ROLE: single with {placement.name('nnodes')}={placement.nnodes}: "
            "it is one machine: use aggregated on every node, and etcd and frontend on one"
        )
    if "nginx" in wanted and placement.job is None:
        yield problem("cannot use ROLE: nginx: only ROLE=auto under SLURM places it: leave it out")
    if s.etcd_members is not None and placement.job is not None:
        yield problem(
            f"cannot use GLM47_ETCD_MEMBERS: {s.etcd_members}: ROLE=auto under SLURM runs one etcd, on the "
            "head: leave it out, or set ETCD_ENDPOINTS to members that run elsewhere"
        )
    if s.prefill_workers and {"single", "aggregated"} & set(roles):
        yield problem(
            f"cannot use GLM47_PREFILL_WORKERS: {s.prefill_workers} with ROLE={','.join(roles)}: "
            "an aggregated worker does its own prefill: use ROLE=decode, or set it to 0"
        )
    elif "frontend" in roles and "decode" in roles and "prefill" not in roles and not s.prefill_workers:
        yield warning(
            "GLM47_PREFILL_WORKERS is 0, but ROLE has decode: this frontend waits for no prefill worker "
            "and sends decode workers requests that nobody has prefilled"
        )


def _discovery(
    s: Settings, placement: Placement, roles: tuple[str, ...], native: Mapping[str, str]
) -> tuple[str, list[Diagnostic]]:
    store = s.discovery
    if store == "auto":
        store = "file" if placement.one_machine else "etcd"
    result: str = store
    found = []
    for variable in ("DYN_STORE_KV", "DYN_DISCOVERY_BACKEND"):
        if variable in native and native[variable] in STORES:
            result = native[variable]
            if s.discovery not in ("auto", result):
                found.append(warning(f"{variable}={result} wins over GLM47_DISCOVERY={s.discovery}"))
    workers = set(roles) & set(WORKER_ROLES)
    alone = bool(workers) != ("frontend" in roles)
    if result == "file" and alone and "DYN_FILE_KV" not in native:
        found.append(
            problem(
                f"cannot use GLM47_DISCOVERY: file with ROLE={','.join(roles)}: "
                "workers and frontend are in different containers: use etcd, or "
                "set DYN_FILE_KV to a directory that both have, on one machine"
            )
        )
    return result, found


def _needs_nats(ctx: Context) -> tuple[bool, Diagnostics]:
    if ctx.native.get("DYN_REQUEST_PLANE") == "nats" or "NATS_SERVER" in ctx.native:
        return True, ()
    if ctx.settings.engine == "mocker" and ctx.worker_roles and ctx.has(MOCKER_NEEDS_NATS):
        return True, (note("NATS is needed: the mocker of Dynamo before 1.3 needs it"),)
    return "frontend" in ctx.roles and frontend.uses_kv_events(ctx), ()


def _etcd(ctx: Context) -> Server:
    trusted = etcd.trusted(ctx)

    def gate(url: str, setting: str) -> Gate:
        return etcd.etcd_gate(url, setting, ctx.settings.server_timeout, *trusted)

    if "ETCD_ENDPOINTS" not in ctx.native and (urls := etcd.member_urls(ctx.settings)) is not None:
        return Server(urls, gate=None if "etcd" in ctx.roles else gate(urls, "GLM47_ETCD_MEMBERS"))
    return _server(
        ctx, "etcd", "no etcd", "ETCD_ENDPOINTS", etcd.scheme(ctx.settings), ctx.settings.etcd_port, gate
    )


def _nats(ctx: Context) -> Server:
    def gate(url: str, setting: str) -> Gate:
        return nats.nats_gate(ctx, url, setting)

    scheme = nats.scheme(ctx.settings)
    return _server(ctx, "nats", "no NATS server", "NATS_SERVER", scheme, ctx.settings.nats_port, gate)


def _server(
    ctx: Context,
    role: str,
    nothing: str,
    variable: str,
    scheme: str,
    port: int,
    gate: Callable[[str, str], Gate],
) -> Server:
    """Where the server is that role `role` runs: what `variable` says, here, on the head, or nowhere.

    `gate` takes its URL and the setting that it came from, and raises ValueError for a bad one.
    """
    head = ctx.placement.head_address
    own = f"{scheme}://{LOOPBACK}:{port}"
    if url := ctx.native.get(variable):
        setting = variable
    elif role in ctx.roles:
        return Server(own)
    elif head is not None:
        url, setting = f"{scheme}://{bracketed(head)}:{port}", "GLM47_HEAD_ADDRESS"
    elif ctx.one_machine:
        return Server(own, ours=True)
    else:
        return Server(diagnostics=(_nobody(ctx, role, nothing, variable),))
    try:
        return Server(url, gate=gate(url, setting))
    except ValueError:
        return Server(url, diagnostics=(_bad_url(setting, url, scheme),))


def _nobody(ctx: Context, role: str, what: str, variable: str) -> Diagnostic:
    return problem(
        f"cannot plan ROLE: {','.join(ctx.roles)}: {what} is named: "
        f"set GLM47_HEAD_ADDRESS to the node that runs it, or {variable}, or add {role} to ROLE"
    )


def _bad_url(setting: str, url: str, scheme: str) -> Diagnostic:
    return problem(f"cannot use {setting}: {url.rpartition('@')[2]}: give {scheme}://host:port")


def _store_gate(ctx: Context) -> Gate:
    """A frontend that watches the file store while workers register may read a half-written key."""
    probe = StoreProbe(engine_env.file_store(ctx), backend=ctx.decode_workers, prefill=ctx.prefill_workers)
    return Gate("file-store", probe, ctx.settings.start_timeout, "DYN_FILE_KV")


def _model_path(ctx: Context) -> tuple[str, Diagnostics]:
    """The original, or the view of it: `GLM47_RUN_DIR/model/<served name>`."""
    s, name = ctx.settings, ctx.settings.served_model_name
    parts = PurePosixPath(name).parts
    if ":" in name or name.startswith("/") or {"..", "."} & set(name.split("/")) or "" in name.split("/"):
        why = (
            f"cannot use GLM47_SERVED_MODEL_NAME: {name}: SGLang keeps ':' for adapters, and "
            "the name becomes a directory: use a name such as glm-4.7 or zai-org/GLM-4.7"
        )
        return s.model_path, (problem(why),)
    if s.engine == "mocker" or file_edits.needs_view(ctx.facts):
        return str(PurePosixPath(ctx.shared_dir, mocker.VIEWS, *parts)), ()
    return s.model_path, ()
