"""What cannot work for a worker, seen on its final command line, before twenty minutes are lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from entrypoint.node.model import quantization
from entrypoint.plan import profiles
from entrypoint.plan.context import Context
from entrypoint.plan.diagnostics import Diagnostic, note, problem, warning
from entrypoint.plan.engine import moe_runner, parallelism
from entrypoint.plan.releases import (
    ASSERTS_W2_SCALES,
    CUTEDSL_NEEDS_DEEPEP,
    FORCES_LOW_LATENCY,
    FP8_TO_FP4,
    PINNED,
    TAKES_ROUND_ROBIN,
)
from entrypoint.plan.roles import sglang, shared_node
from entrypoint.plan.roles.rank import Rank


def check(ctx: Context, rank: Rank) -> Iterator[Diagnostic]:
    """Everything that is wrong or wasteful with a rank of SGLang."""
    yield from _profile(ctx)
    model, given, split = ctx.facts.model, rank.options, rank.split
    nvfp4 = given.value("--quantization") == "modelopt_fp4"
    values = {"tp": split.tp, "dp": split.dp, "ep": split.ep}
    checked = split
    if given.get("--dp-size") is not None and split.dp > 1 and given.get("--enable-dp-attention") is None:
        # Whole replicas: the attention of each is split over all of TP.
        checked = replace(split, dp=1)
    for finding in parallelism.check(
        checked,
        heads=model.heads,
        kv_heads=model.kv_heads,
        experts=model.experts,
        intermediate=model.moe_intermediate_size,
        nvfp4=nvfp4,
    ):
        setting, value = rank.settings[finding.number], values[finding.number]
        yield problem(f"cannot use {setting}: {value}: {finding.why}: {finding.remedy}")
    yield from _quantization(ctx, rank)
    yield from _runner(ctx, rank, nvfp4)
    if nvfp4:
        yield from _padding(ctx, rank)
    balanced = given.get("--prefill-round-robin-balance") is not None
    if rank.role == "decode" and split.dp > 1 and ctx.has(TAKES_ROUND_ROBIN) and not balanced:
        yield problem(
            f"cannot use GLM47_PREFILL_ROUND_ROBIN: false: sglang before {TAKES_ROUND_ROBIN.until} "
            f"needs it on decode workers of DP {split.dp}: set it to true, or GLM47_DP to 1"
        )
    yield from shared_node.check(ctx, rank.role, split.gpus, rank.settings["tp"])
    room, taken = (
        split.nnodes * split.gpus_per_node,
        split.gpus * shared_node.per_node(ctx.settings, rank.role),
    )
    if taken < room and len(ctx.worker_roles) == 1:
        yield warning(f"{rank.role} uses {taken} of {room} GPUs: {rank.settings['tp']} is {split.tp}")


def _profile(ctx: Context) -> Iterator[Diagnostic]:
    profile, engine = profiles.PROFILES[ctx.settings.profile], ctx.facts.engine
    if why := profiles.misfit(profile, {"sglang": engine.sglang, "dynamo": engine.dynamo}):
        yield problem(f"cannot use {profiles.SETTING}: {profile.name}: {why}: use balanced or original")


def check_room(ctx: Context, gpus: int) -> Iterator[Diagnostic]:
    """Several workers in one container share its GPUs."""
    roles = ctx.worker_roles
    if len(roles) < 2:
        return
    if ctx.placement.nnodes > 1:
        yield problem(
            f"cannot use ROLE: {','.join(roles)} with {ctx.placement.name('nnodes')}={ctx.placement.nnodes}: "
            "two workers of several nodes would share one container: give each its own"
        )
    elif gpus > ctx.settings.gpus_per_node:
        yield problem(
            f"cannot use ROLE: {','.join(roles)}: together they take {gpus} GPUs of "
            f"{ctx.settings.gpus_per_node}: "
            "lower GLM47_PREFILL_TP or GLM47_DECODE_TP, or give each its own container"
        )


def check_given_gpus(ctx: Context, splits: Sequence[parallelism.Split]) -> Iterator[Diagnostic]:
    """What the container was given must hold what this node's ranks take."""
    if ctx.facts.gpus is None or not splits:
        return
    variable, given = ctx.facts.gpus
    needed = sum(-(-split.gpus // split.nnodes) for split in splits) * shared_node.here(ctx)
    own = ctx.settings.gpus_per_node
    if needed > given:
        yield problem(
            f"cannot use GLM47_GPUS_PER_NODE: {own}: the ranks of this node take {needed} GPUs, and "
            f"{variable} gives {given or 'none'}: "
            + (f"set it to {given}, or give the container {needed}" if given else f"give it {needed}")
        )
    elif given > own:
        yield warning(
            f"{variable} gives {given} GPUs, and GLM47_GPUS_PER_NODE is {own}: the others stay idle"
        )


def check_placement(ctx: Context, rank: Rank) -> Iterator[Diagnostic]:
    """The rank must be one of the worker's, and must know its leader."""
    if ctx.one_machine:
        return
    place, nnodes = ctx.placement, max(1, rank.nnodes)
    if rank.node_rank >= nnodes:
        yield problem(
            f"cannot use {rank.settings['node_rank']}: {rank.node_rank}: ranks of {nnodes} "
            f"node{'s' if nnodes > 1 else ''} are 0 to {nnodes - 1}: "
            f"lower it, or raise {place.name('nnodes')}"
        )
    extra = rank.options.get("--dist-init-addr")
    if nnodes > 1 and place.leader_address is None and not (extra is not None and extra.source):
        yield problem(
            f"cannot use {rank.settings['nnodes']}: {nnodes}: "
            "the ranks do not know their leader: set GLM47_LEADER_ADDRESS to the address of rank 0"
        )


def _quantization(ctx: Context, rank: Rank) -> Iterator[Diagnostic]:
    model, asked = ctx.facts.model.quantization, rank.options.value("--quantization")
    known = FP8_TO_FP4.holds(ctx.facts.engine.sglang) is True
    if model is None or asked is None or not quantization.refused(asked, model, fp8_to_fp4=known):
        return
    found = "not quantized" if model == quantization.NONE else f"quantized with {model}"
    yield problem(
        f"cannot use {rank.label('--quantization', 'GLM47_QUANTIZATION')}: {asked}: the model at "
        f"{ctx.settings.model_path} is {found}: set GLM47_QUANTIZATION=none, or serve another checkpoint"
    )


def _runner(ctx: Context, rank: Rank, nvfp4: bool) -> Iterator[Diagnostic]:
    engine, given, split = ctx.facts.engine, rank.options, rank.split
    runner = given.value("--moe-runner-backend") or "auto"
    label = rank.label("--moe-runner-backend", "GLM47_MOE_RUNNER")
    chosen, reason = moe_runner.choose(
        engine.sglang, engine.flashinfer, quantization=given.value("--quantization") or sglang.UNQUANTIZED
    )
    if label == "GLM47_MOE_RUNNER" and ctx.settings.moe_runner == "auto":
        yield note(f"MoE runner {chosen}: {reason}")
    elif nvfp4 and runner == moe_runner.TRTLLM:
        fault = moe_runner.trtllm_fault(engine.sglang, engine.flashinfer)
        if fault is not None:
            yield problem(f"cannot use {label}: {runner}: {fault}: use {moe_runner.CUTLASS} or auto")
    if split.ep > 1 and nvfp4 and split.tp % split.ep == 0:
        yield from _experts(ctx, rank, runner, label)


def _experts(ctx: Context, rank: Rank, runner: str, runner_label: str) -> Iterator[Diagnostic]:
    """Whether the MoE runner computes a rank's own experts rightly; EP is over 1."""
    split, label, given = rank.split, rank.settings["ep"], rank.options
    version = ctx.facts.engine.sglang or PINNED["sglang"]
    behind_deepep = given.value("--moe-a2a-backend") == "deepep"
    only_tp = runner in (moe_runner.CUTLASS, moe_runner.CUTEDSL)
    if moe_runner.mixes_scales(runner, version):
        yield problem(
            f"cannot use {label}: {split.ep}: sglang {version} mixes global and local "
            f"expert scales with the MoE runner {runner}: use 1, or GLM47_MOE_RUNNER={moe_runner.CUTLASS} "
            "with EP equal to TP"
        )
    elif only_tp and split.ep != split.tp:
        yield problem(
            f"cannot use {label}: {split.ep}: {runner} takes EP 1 or EP equal to TP only: use 1 or {split.tp}"
        )
    elif runner == moe_runner.CUTEDSL and not behind_deepep and CUTEDSL_NEEDS_DEEPEP.holds(version):
        yield problem(
            f"cannot use {runner_label}: {runner}: sglang before {CUTEDSL_NEEDS_DEEPEP.until} has it for EP "
            f"behind DeepEP only: add --moe-a2a-backend deepep, or use {moe_runner.CUTLASS}"
        )
    elif runner == moe_runner.CUTEDSL and behind_deepep and (why := _deepep_mode(rank, version)) is not None:
        yield problem(why)
    elif runner in (moe_runner.CUTLASS, moe_runner.TRTLLM, moe_runner.CUTEDSL):
        yield warning(
            f"EP {split.ep} with {runner} was read in sglang {version}, not run: try it before you rely on it"
        )


def _deepep_mode(rank: Rank, version: str) -> str | None:
    """Why DeepEP's mode ends a worker whose experts flashinfer_cutedsl computes; None: it does not."""
    mode = rank.options.value("--deepep-mode") or "auto"
    label = rank.label("--deepep-mode", rank.label("--moe-a2a-backend", "--moe-a2a-backend"))
    prefills = rank.role != "decode" and FORCES_LOW_LATENCY.holds(version) is False
    if mode == "normal" or (mode == "auto" and prefills):
        return (
            f"cannot use {label}: {'deepep' if mode == 'auto' else mode}: {moe_runner.CUTEDSL} has no kernel "
            "for DeepEP's normal mode, which prefill takes: add --deepep-mode low_latency"
        )
    return None


def _padding(ctx: Context, rank: Rank) -> Iterator[Diagnostic]:
    s, split = ctx.settings, rank.split
    version = ctx.facts.engine.sglang
    if s.modelopt_patch != "pad" and ASSERTS_W2_SCALES.holds(version):
        text = f"sglang {version} stops at every TP while it loads the experts"
        if s.allow_wrong_padding:
            yield warning(f"GLM47_MODELOPT_PATCH={s.modelopt_patch}: {text}")
        else:
            yield problem(
                f"cannot use GLM47_MODELOPT_PATCH: {s.modelopt_patch}: {text}: use pad "
                "(GLM47_ALLOW_WRONG_PADDING=true tries it all the same)"
            )
        return
    width = parallelism.width_per_rank(ctx.facts.model.moe_intermediate_size, split.tp, split.ep)
    if width is None or width % parallelism.NVFP4_BLOCK or width == parallelism.padded_width(width):
        return
    padded = parallelism.padded_width(width)
    text = f"MoE width per rank {width} ({rank.role}, TP {split.tp})"
    if s.modelopt_patch == "pad":
        yield warning(
            f"{text} is padded to {padded}: {parallelism.waste(width):.0%} more expert weight and work "
            f"than needed; workers of TP {split.tp // 2} use the same GPUs without padding"
        )
    elif s.modelopt_patch == "off":
        yield problem(
            f"cannot use GLM47_MODELOPT_PATCH: off: {text} needs padding to {padded}, which sglang asserts "
            "on: use pad, or a TP whose width is a multiple of 64"
        )
    elif not s.allow_wrong_padding:
        yield problem(
            f"cannot use GLM47_MODELOPT_PATCH: assert: {text} is then padded wrongly: garbage "
            "answers: use pad (GLM47_ALLOW_WRONG_PADDING=true serves them all the same)"
        )
    else:
        yield warning(f"{text} is padded wrongly by GLM47_MODELOPT_PATCH=assert: answers are garbage")
