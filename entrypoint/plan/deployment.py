"""Decisions for the whole container: its roles, its store, its etcd and NATS, the model's path. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath

from entrypoint.node.facts import Facts
from entrypoint.node.placement import ROLE_ORDER, WORKER_ROLES, Placement
from entrypoint.plan import file_edits
from entrypoint.plan.context import Context, Notebook
from entrypoint.plan.endpoint import ANY6, LOOPBACK, bracketed
from entrypoint.plan.releases import MOCKER_NEEDS_NATS
from entrypoint.plan.roles import endpoints, engine_env, frontend, mocker, servers
from entrypoint.plan.stop_budget import shares
from entrypoint.plan.types import Gate, StoreProbe
from entrypoint.settings.schema import Settings

STORES = ("etcd", "file", "mem")
KINDS = {"nginx": "nginx", "frontend": "frontend", "etcd": "server", "nats": "server"}
"""By role, its step of a stop; the other roles are workers."""


def decide(
    s: Settings, placement: Placement, facts: Facts, native: Mapping[str, str], book: Notebook
) -> Context:
    """Everything the roles share; problems go into `book`."""
    wanted = set(placement.roles)
    single = placement.one_machine
    if single:
        wanted = {"aggregated", "frontend"}
        if placement.nnodes > 1:
            book.problems.append(
                f"cannot use ROLE: single with {placement.name('nnodes')}={placement.nnodes}: "
                "it is one machine; use aggregated on every node, and etcd and frontend on one"
            )
    if "nginx" in wanted and placement.job is None:
        book.problems.append("cannot use ROLE: nginx: only ROLE=auto under SLURM places it; leave it out")
    _check_disaggregation(s, placement, book)
    roles = tuple(r for r in ROLE_ORDER if r in wanted)
    s = _hosts(s, placement)
    base = Context(
        settings=s,
        placement=placement,
        facts=facts,
        native=native,
        roles=roles,
        discovery=_discovery(s, placement, roles, native, book),
        model_path=_model_path(s, facts, book),
        stop=shares(s.stop_timeout, ()),
        book=book,
        api=endpoints.api(s, native, behind_nginx=placement.behind_nginx),
        prefill_workers=max(s.prefill_workers, 1 if "prefill" in roles else 0),
        decode_workers=max(s.decode_workers, 1),
    )
    uses_dynamo = bool(set(roles) & {*WORKER_ROLES, "frontend"})
    gates: list[Gate] = []
    etcd_url = nats_url = None
    if uses_dynamo and base.discovery == "etcd":
        etcd_url, wanted_etcd = _etcd(base, gates)
        roles = _with(roles, "etcd", wanted_etcd)
    if uses_dynamo and _needs_nats(base):
        nats_url, wanted_nats = _nats(base, gates)
        roles = _with(roles, "nats", wanted_nats)
    if base.discovery == "file" and "frontend" in roles and not base.worker_roles:
        gates.append(_store_gate(base))
    return replace(
        base,
        roles=roles,
        etcd_url=etcd_url,
        nats_url=nats_url,
        gates=tuple(gates),
        stop=shares(s.stop_timeout, {KINDS.get(r, "worker") for r in roles}, worker_drains=not single),
    )


def _hosts(s: Settings, placement: Placement) -> Settings:
    """`s`, listening for IPv6 too where this node has such an address, unless somebody said where."""
    if placement.one_machine or ":" not in (placement.node_address or ""):
        return s
    unset = [name for name in ("http_host", "health_host") if name not in s.model_fields_set]
    return s.model_copy(update=dict.fromkeys(unset, ANY6))


def _with(roles: tuple[str, ...], role: str, add: bool) -> tuple[str, ...]:
    return tuple(r for r in ROLE_ORDER if r in roles or (add and r == role))


def _check_disaggregation(s: Settings, placement: Placement, book: Notebook) -> None:
    roles = placement.roles
    if s.prefill_workers and {"single", "aggregated"} & set(roles):
        book.problems.append(
            f"cannot use GLM47_PREFILL_WORKERS: {s.prefill_workers} with ROLE={','.join(roles)}: "
            "an aggregated worker does its own prefill; use ROLE=decode, or set it to 0"
        )
    elif "frontend" in roles and "decode" in roles and "prefill" not in roles and not s.prefill_workers:
        book.warnings.append(
            "GLM47_PREFILL_WORKERS is 0, but ROLE has decode: this frontend waits for no prefill worker "
            "and sends decode workers requests that nobody has prefilled"
        )


def _discovery(
    s: Settings, placement: Placement, roles: tuple[str, ...], native: Mapping[str, str], book: Notebook
) -> str:
    store = s.discovery
    if store == "auto":
        store = "file" if placement.one_machine else "etcd"
    result: str = store
    for variable in ("DYN_STORE_KV", "DYN_DISCOVERY_BACKEND"):
        if variable in native and native[variable] in STORES:
            result = native[variable]
            if s.discovery not in ("auto", result):
                book.warnings.append(f"{variable}={result} wins over GLM47_DISCOVERY={s.discovery}")
    workers = set(roles) & set(WORKER_ROLES)
    alone = bool(workers) != ("frontend" in roles)
    if result == "file" and alone and "DYN_FILE_KV" not in native:
        book.problems.append(
            f"cannot use GLM47_DISCOVERY: file with ROLE={','.join(roles)}: "
            "workers and frontend are in different containers; use etcd, or "
            "set DYN_FILE_KV to a directory that both have, on one machine"
        )
    return result


def _needs_nats(ctx: Context) -> bool:
    if ctx.native.get("DYN_REQUEST_PLANE") == "nats" or "NATS_SERVER" in ctx.native:
        return True
    if ctx.settings.engine == "mocker" and ctx.worker_roles and ctx.has(MOCKER_NEEDS_NATS):
        ctx.book.notes.append("NATS is needed: the mocker of Dynamo before 1.3 needs it")
        return True
    return "frontend" in ctx.roles and frontend.uses_kv_events(ctx)


def _etcd(ctx: Context, gates: list[Gate]) -> tuple[str | None, bool]:
    """(endpoints, whether this container must run etcd itself)."""
    s, native = ctx.settings, ctx.native
    own = f"http://{LOOPBACK}:{s.etcd_port}"
    ca_file = native.get("ETCD_AUTH_CA")
    if native.get("ETCD_ENDPOINTS"):
        url = native["ETCD_ENDPOINTS"]
        try:
            gates.append(servers.etcd_gate(url, "ETCD_ENDPOINTS", s.server_timeout, ca_file))
        except ValueError:
            shown = url.rpartition("@")[2]
            ctx.book.problems.append(f"cannot use ETCD_ENDPOINTS: {shown}: give http://host:port")
        return url, False
    if "etcd" in ctx.roles:
        return own, False
    if s.head_address is not None:
        url = f"http://{bracketed(s.head_address)}:{s.etcd_port}"
        gates.append(servers.etcd_gate(url, "GLM47_HEAD_ADDRESS", s.server_timeout, ca_file))
        return url, False
    if ctx.one_machine:
        return own, True
    ctx.book.problems.append(
        f"cannot plan ROLE: {','.join(ctx.roles)}: no etcd is named; "
        "set GLM47_HEAD_ADDRESS to the node that runs it, or ETCD_ENDPOINTS, or add etcd to ROLE"
    )
    return None, False


def _nats(ctx: Context, gates: list[Gate]) -> tuple[str | None, bool]:
    """(server, whether this container must run NATS itself)."""
    s, native = ctx.settings, ctx.native
    own = f"nats://{LOOPBACK}:{s.nats_port}"
    url, setting = own, ""
    if native.get("NATS_SERVER"):
        url, setting = native["NATS_SERVER"], "NATS_SERVER"
    elif "nats" in ctx.roles:
        return own, False
    elif s.head_address is not None:
        url, setting = f"nats://{bracketed(s.head_address)}:{s.nats_port}", "GLM47_HEAD_ADDRESS"
    elif ctx.one_machine:
        return own, True
    else:
        ctx.book.problems.append(
            f"cannot plan ROLE: {','.join(ctx.roles)}: no NATS server is named; "
            "set GLM47_HEAD_ADDRESS to the node that runs it, or NATS_SERVER, or add nats to ROLE"
        )
        return None, False
    try:
        gates.append(servers.nats_gate(url, setting, s.server_timeout))
    except ValueError:
        ctx.book.problems.append(f"cannot use {setting}: {url.rpartition('@')[2]}: give nats://host:port")
    return url, False


def _store_gate(ctx: Context) -> Gate:
    """A frontend that watches the file store while workers register may read a half-written key."""
    directory = ctx.native.get("DYN_FILE_KV") or engine_env.file_store(ctx)
    probe = StoreProbe(directory, backend=ctx.decode_workers, prefill=ctx.prefill_workers)
    return Gate("file-store", probe, ctx.settings.start_timeout, "DYN_FILE_KV")


def _model_path(s: Settings, facts: Facts, book: Notebook) -> str:
    """The original, or the view of it: `GLM47_RUN_DIR/model/<served name>`."""
    name = s.served_model_name
    parts = PurePosixPath(name).parts
    if ":" in name or name.startswith("/") or {"..", "."} & set(name.split("/")) or "" in name.split("/"):
        book.problems.append(
            f"cannot use GLM47_SERVED_MODEL_NAME: {name}: SGLang keeps ':' for adapters, and "
            "the name becomes a directory; use a name such as glm-4.7 or zai-org/GLM-4.7"
        )
        return s.model_path
    if s.engine == "mocker" or file_edits.needs_view(facts):
        return str(PurePosixPath(s.run_dir, mocker.VIEWS, *parts))
    return s.model_path
