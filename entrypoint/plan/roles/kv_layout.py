"""Whether prefill and decode workers fit together, wherever a container knows of both. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from entrypoint.node.facts import Facts
from entrypoint.node.placement import Placement
from entrypoint.node.topology import Topology
from entrypoint.plan.context import Context
from entrypoint.plan.diagnostics import Diagnostic, Diagnostics, problem, warning
from entrypoint.plan.engine import kv_layouts
from entrypoint.plan.engine.kv_layouts import Verdict
from entrypoint.plan.releases import PINNED
from entrypoint.plan.roles.rank import Rank, resolve_rank, resolve_ranks
from entrypoint.plan.types import KvLayout
from entrypoint.settings.schema import Settings

PAIR = ("prefill", "decode")
ALLOW = "GLM47_ALLOW_WRONG_LAYOUT"


def layout_of(ctx: Context, rank: Rank) -> KvLayout:
    """The layout that a rank's final command line gives its worker."""
    given, split = rank.options, rank.split
    shared = given.get("--enable-dp-attention") is not None and split.tp % split.dp == 0
    backend = given.value("--disaggregation-transfer-backend") or ctx.settings.transfer_backend
    return KvLayout(
        role=rank.role,
        attention_tp=split.attention_tp if shared else split.tp,
        pp=split.pp,
        kv_heads=ctx.facts.model.kv_heads,
        transfer_backend=backend,
        kv_cache_dtype=given.value("--kv-cache-dtype") or ctx.settings.kv_cache_dtype,
        page_size=rank.page_size,
        sglang=ctx.facts.engine.sglang or PINNED["sglang"],
        transfer_code=ctx.facts.engine.transfer_code.get(backend),
    )


def layouts(ctx: Context, ranks: Sequence[Rank]) -> tuple[tuple[KvLayout, ...], Diagnostics]:
    """The layouts of this container's `ranks`, and what does not fit together.

    The counterpart in another container is known from a Slurm job's topology, or from settings that name it.
    """
    own = {rank.role: layout_of(ctx, _as_sglang(ctx, rank)) for rank in ranks if rank.role in PAIR}
    both = {role: own.get(role) or _elsewhere(ctx, role) for role in PAIR}
    prefill, decode = both["prefill"], both["decode"]
    found: Diagnostics = ()
    if prefill is not None and decode is not None and _disaggregated(ctx):
        verdict = kv_layouts.fit(prefill, decode)
        if verdict.word != "right":
            found = (_report(ctx, prefill, decode, verdict),)
    return tuple(own.values()) if ctx.settings.engine == "sglang" else (), found


def of_topology(
    settings: Settings, topology: Topology, facts: Facts, native: Mapping[str, str]
) -> Diagnostics:
    """What is to be said of the prefill and decode workers of a whole deployment."""
    from entrypoint.node import slurm
    from entrypoint.plan import deployment

    head = topology.head
    place = Placement(
        "slurm", (head.role,), head.nnodes, head_address=head.name, job=slurm.Job(None, topology, head)
    )
    ctx = deployment.decide(settings, place, facts, native)
    return layouts(ctx, resolve_ranks(ctx))[1]


def _disaggregated(ctx: Context) -> bool:
    job = ctx.placement.job
    if job is not None:
        return job.topology.disaggregated
    return ctx.prefill_workers > 0 or bool(set(PAIR) & set(ctx.roles))


def _elsewhere(ctx: Context, role: str) -> KvLayout | None:
    """The layout of the workers of `role` that are in other containers; None: nothing says what it is."""
    s, job = ctx.settings, ctx.placement.job
    given = s.model_fields_set
    nodes = s.prefill_nodes if role == "prefill" else s.decode_nodes
    if job is not None:
        topology = job.topology
        if not topology.disaggregated:
            return None
        nodes = topology.prefill_nodes if role == "prefill" else topology.decode_nodes
    elif not {f"{role}_tp", f"{role}_nodes"} & given:
        return None
    place = replace(ctx.placement, roles=(role,), nnodes=nodes, node_rank=0)
    there = replace(ctx, roles=(role,), placement=place)
    return layout_of(there, resolve_rank(there, role, engine="sglang"))


def _as_sglang(ctx: Context, rank: Rank) -> Rank:
    # The mocker has no TP: what SGLang would get in its place is what a rehearsal wants to know.
    return resolve_rank(ctx, rank.role, engine="sglang") if rank.mock else rank


def _report(ctx: Context, prefill: KvLayout, decode: KvLayout, verdict: Verdict) -> Diagnostic:
    unequal = prefill.attention_tp != decode.attention_tp
    source = f" ({_setting(ctx, 'prefill')}, {_setting(ctx, 'decode')})" if unequal else ""
    text = kv_layouts.describe(prefill, decode, verdict, source)
    if ctx.settings.engine == "mocker":
        return warning(f"SGLang would not start prefill and decode workers of {text}")
    if not verdict.refused:
        return warning(f"prefill and decode of {text}; nothing is cut where both have the same TP")
    if ctx.settings.allow_wrong_layout:
        return warning(f"{ALLOW}: prefill and decode do not fit together: {text}")
    return problem(
        f"cannot pair prefill and decode workers: {text}: {_remedy(prefill, decode)} "
        f"(plan --explain layout shows what fits; {ALLOW}=true starts them all the same)"
    )


def _setting(ctx: Context, role: str) -> str:
    """What gave a role's TP."""
    s = ctx.settings
    field = f"{role}_tp"
    if getattr(s, field) is not None:
        return f"GLM47_{field.upper()}"
    if s.tp is not None:
        return "GLM47_TP"
    return f"GLM47_{role.upper()}_NODES"


def _remedy(prefill: KvLayout, decode: KvLayout) -> str:
    big, small = prefill.attention_tp, decode.attention_tp
    if prefill.pp > 1 or decode.pp > 1:
        return "use more TP in place of PP"
    if replace(prefill, role="", attention_tp=0) != replace(decode, role="", attention_tp=0):
        return "give both the same"
    if big == small:
        return "use another base image, or another GLM47_TRANSFER_BACKEND"
    if big > small and big % small == 0:
        return (
            f"give both attention-TP {small}: {big // small} prefill workers in place of each one use the "
            "same GPUs (GLM47_PREFILL_WORKERS, GLM47_PREFILL_NODES)"
        )
    return "give both the same attention-TP"
