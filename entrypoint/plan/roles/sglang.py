"""SGLang's command line for one rank, from settings alone; a person's own arguments are merged in later."""

from __future__ import annotations

from entrypoint.plan import arguments, profiles
from entrypoint.plan.context import Context
from entrypoint.plan.endpoint import bracketed
from entrypoint.plan.engine import moe_runner
from entrypoint.plan.releases import OVERLAP_HANGS, TAKES_ROUND_ROBIN
from entrypoint.plan.roles import bootstrap, shared_node
from entrypoint.settings.schema import Settings

UNQUANTIZED = "none"
"""The word for a model whose own files say what it is: SGLang's option has no value for that, and an empty
setting counts as unset."""
SGLANGS_CHOICE = "auto"
"""The word of GLM47_ATTENTION_BACKEND for leaving the option out."""
VITAL = ("sglang::scheduler", "sglang::detokenizer", "sglang::data_parallel_controller")
"""Titles of the processes that SGLang starts beside its main process and never replaces: one scheduler per
GPU, with --dp-size over 1 under a controller, and on rank 0 a detokenizer (engine.py, scheduler.py,
detokenizer_manager.py and data_parallel_controller.py of 0.5.6.post2)."""
SETTINGS = {
    "--quantization": "GLM47_QUANTIZATION",
    "--kv-cache-dtype": "GLM47_KV_CACHE_DTYPE",
    "--attention-backend": "GLM47_ATTENTION_BACKEND",
    "--moe-runner-backend": "GLM47_MOE_RUNNER",
    "--disaggregation-transfer-backend": "GLM47_TRANSFER_BACKEND",
    "--dyn-tool-call-parser": "GLM47_TOOL_CALL_PARSER",
    "--dyn-reasoning-parser": "GLM47_REASONING_PARSER",
}
"""By planned option, its setting: those whose words only the installed release knows."""
TRUST = "--trust-remote-code"
PLACED = (
    "--attention-backend", "--mem-fraction-static", "--enable-symm-mem", "--dp-size", "--ep-size",
    profiles.MNNVL, TRUST,
)  # fmt: skip
"""What a profile may give and what has a place of its own in `options`; the rest follows."""
ENGINE_ROLES = {"prefill": "prefill", "decode": "decode"}


def tp_of(ctx: Context, role: str) -> tuple[int, str]:
    """(tensor parallelism, name of its setting) before extra arguments; unset: all the worker's GPUs."""
    s = ctx.settings
    if role == "prefill" and s.prefill_tp is not None:
        return s.prefill_tp, "GLM47_PREFILL_TP"
    if role == "decode" and s.decode_tp is not None:
        return s.decode_tp, "GLM47_DECODE_TP"
    if s.tp is not None:
        return s.tp, "GLM47_TP"
    sharers = len(ctx.worker_roles) * shared_node.per_node(s, role)
    return max(1, s.gpus_per_node * ctx.placement.nnodes // sharers), "GLM47_TP"


def given(ctx: Context, role: str) -> dict[str, str | None]:
    """By option, what the profile gives a worker of `role`."""
    engine = ctx.facts.engine
    installed = {"sglang": engine.sglang, "dynamo": engine.dynamo}
    return profiles.values(ctx.settings.profile, role, installed, tp_of(ctx, role)[0])


def settings(ctx: Context, role: str) -> dict[str, str]:
    """By planned option, the setting that it can be changed with: where nothing is set, the profile."""
    own, found = _own(ctx.settings), given(ctx, role)
    by_profile = (o for o, value in found.items() if value is not profiles.OFF and own.get(o) is None)
    return {**SETTINGS, **dict.fromkeys(by_profile, profiles.SETTING)}


def dp_of(ctx: Context, role: str) -> int:
    """Data parallelism before extra arguments."""
    own = 1 if role == "prefill" else ctx.settings.dp
    return own or int(given(ctx, role).get("--dp-size") or 1)


def ep_of(ctx: Context, role: str) -> int:
    """Expert parallelism before extra arguments."""
    return ctx.settings.ep or int(given(ctx, role).get("--ep-size") or 1)


def _own(s: Settings) -> dict[str, str | bool | int | None]:
    """What is set in place of a profile's values, by option; None: nothing."""
    return {
        "--attention-backend": s.attention_backend,
        "--mem-fraction-static": None if s.mem_fraction is None else f"{s.mem_fraction:g}",
        "--enable-symm-mem": s.symm_mem,
        "--dp-size": s.dp,
        "--ep-size": s.ep,
        TRUST: s.trust_remote_code,
    }


def _chosen(ctx: Context, role: str, *options: str) -> list[str | tuple[str, str]]:
    """Those of `options` that are set, by a setting or by the profile."""
    own, found = _own(ctx.settings), given(ctx, role)
    words: list[str | tuple[str, str]] = []
    for option in options:
        value = own.get(option)
        if value is None:
            value = found.get(option)
        if value is None and option == TRUST and ctx.facts.model.own_code:
            value = profiles.SWITCH
        if value in (True, profiles.SWITCH):
            words.append(option)
        elif isinstance(value, str) and value != SGLANGS_CHOICE:
            words.append((option, value))
    return words


def options(ctx: Context, role: str, base_gpu: int) -> arguments.Options:
    """The options of a rank with role `role`, whose first GPU is `base_gpu`."""
    s, place = ctx.settings, ctx.placement
    engine = ctx.facts.engine
    runner = s.moe_runner
    if runner == "auto":
        runner, _ = moe_runner.choose(engine.sglang, engine.flashinfer, quantization=s.quantization)
    words: list[str | tuple[str, str]] = [
        ("--model-path", ctx.model_path),
        ("--served-model-name", s.served_model_name),
        *(() if s.quantization == UNQUANTIZED else (("--quantization", s.quantization),)),
        ("--kv-cache-dtype", s.kv_cache_dtype),
        *_chosen(ctx, role, "--attention-backend"),
        ("--moe-runner-backend", runner),
        *_chosen(ctx, role, "--mem-fraction-static"),
    ]
    words += _chosen(ctx, role, TRUST, "--enable-symm-mem")
    dp, ep = dp_of(ctx, role), ep_of(ctx, role)
    words += [("--tp-size", str(tp_of(ctx, role)[0])), ("--dp-size", str(dp)), ("--ep-size", str(ep))]
    if dp > 1:
        # Without it SGLang copies the whole model per group, and refuses more than one node.
        words.append("--enable-dp-attention")
    if base_gpu:
        words.append(("--base-gpu-id", str(base_gpu)))
    if (port := shared_node.sglang_port(ctx)) is not None:
        words.append(("--port", str(port)))
    if role == "prefill" and place.node_rank == 0:
        words.append(("--host", bootstrap.host(ctx)))
    if role in ENGINE_ROLES:
        words += [
            ("--disaggregation-mode", ENGINE_ROLES[role]),
            ("--disaggregation-bootstrap-port", str(s.bootstrap_port)),
            ("--disaggregation-transfer-backend", s.transfer_backend),
        ]
    if role == "decode" and s.prefill_round_robin and ctx.has(TAKES_ROUND_ROBIN):
        words.append("--prefill-round-robin-balance")
    if place.nnodes > 1:
        # One node needs none of these, and Dynamo announces the prefill bootstrap server at the leader's
        # address, so a loopback there would hide it from decode workers.
        words += [
            ("--dist-init-addr", f"{bracketed(place.leader_address or '')}:{s.dist_init_port}"),
            ("--nnodes", str(place.nnodes)),
            ("--node-rank", str(place.node_rank)),
        ]
        if ctx.has(OVERLAP_HANGS):
            words.append("--disable-overlap-schedule")
    words += _chosen(
        ctx, role, *(o for o in given(ctx, role) if o.startswith(profiles.OPTION) and o not in PLACED)
    )
    words += [
        ("--dist-timeout", f"{s.dist_timeout:.0f}"),
        ("--watchdog-timeout", f"{s.watchdog_timeout:.0f}"),
    ]
    return arguments.planned(*words)
