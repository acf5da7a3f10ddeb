"""What cannot work for a worker, seen on its final command line, before twenty minutes are lost."""

from __future__ import annotations

from dataclasses import replace

from entrypoint.node.model import quantization
from entrypoint.plan import arguments
from entrypoint.plan.context import Context
from entrypoint.plan.engine import moe_runner, parallelism
from entrypoint.plan.releases import (
    ASSERTS_W2_SCALES,
    FP8_TO_FP4,
    MIXES_EXPERT_SCALES,
    PINNED,
    TAKES_ROUND_ROBIN,
)
from entrypoint.plan.roles import sglang

SPLIT_FLAGS = {"tp": "--tp-size", "dp": "--dp-size", "ep": "--ep-size"}


class Numbers:
    """Whole numbers on a command line; what is not one becomes a problem, reported once."""

    def __init__(self, ctx: Context, given: arguments.Options) -> None:
        self._ctx = ctx
        self._given = given

    def get(self, flag: str, default: int, field: str) -> int:
        """The value of `flag`, else `default`."""
        text = self._given.value(flag)
        if text is None:
            return default
        if text.isascii() and text.isdigit():
            return int(text)
        problem = f"cannot use {self.label(flag, 'GLM47_' + field.upper())}: {text}: give a whole number"
        if problem not in self._ctx.book.problems:
            self._ctx.book.problems.append(problem)
        return default

    def label(self, flag: str, setting: str) -> str:
        """What a person must change: the extra argument that set `flag`, else `setting`."""
        option = self._given.get(flag)
        return f"{option.source} {option.flag}" if option is not None and option.source else setting


def split_of(ctx: Context, role: str, given: arguments.Options) -> parallelism.Split:
    """The final split of a worker."""
    numbers = Numbers(ctx, given)
    tp, _ = sglang.tp_of(ctx, role)
    dp = 1 if role == "prefill" else ctx.settings.dp
    return parallelism.Split(
        tp=max(1, numbers.get("--tp-size", tp, "tp")),
        dp=max(1, numbers.get("--dp-size", dp, "dp")),
        ep=max(1, numbers.get("--ep-size", ctx.settings.ep, "ep")),
        pp=max(1, numbers.get("--pp-size", 1, "pp")),
        nnodes=max(1, numbers.get("--nnodes", ctx.placement.nnodes, "nnodes")),
        gpus_per_node=ctx.settings.gpus_per_node,
    )


def check(ctx: Context, role: str, given: arguments.Options) -> None:
    """Add everything that is wrong or wasteful with this worker to the notebook."""
    model = ctx.facts.model
    numbers = Numbers(ctx, given)
    split = split_of(ctx, role, given)
    nvfp4 = given.value("--quantization") == "modelopt_fp4"
    settings = {"tp": sglang.tp_of(ctx, role)[1], "dp": "GLM47_DP", "ep": "GLM47_EP"}
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
        label = numbers.label(SPLIT_FLAGS[finding.number], settings[finding.number])
        ctx.book.problems.append(
            f"cannot use {label}: {values[finding.number]}: {finding.why}; {finding.remedy}"
        )
    _quantization(ctx, given, numbers)
    _runner(ctx, given, numbers, split, nvfp4)
    if nvfp4:
        _padding(ctx, role, split)
    balanced = given.get("--prefill-round-robin-balance") is not None
    if role == "decode" and split.dp > 1 and ctx.has(TAKES_ROUND_ROBIN) and not balanced:
        ctx.book.problems.append(
            f"cannot use GLM47_PREFILL_ROUND_ROBIN: false: sglang before {TAKES_ROUND_ROBIN.until} "
            f"needs it on decode workers of DP {split.dp}; set it to true, or GLM47_DP to 1"
        )
    room = split.nnodes * split.gpus_per_node
    if split.gpus < room and len(ctx.worker_roles) == 1:
        label = numbers.label("--tp-size", settings["tp"])
        ctx.book.warnings.append(f"{role} uses {split.gpus} of {room} GPUs: {label} is {split.tp}")


def check_room(ctx: Context, gpus: int) -> None:
    """Several workers in one container share its GPUs."""
    roles = ctx.worker_roles
    if len(roles) < 2:
        return
    if ctx.placement.nnodes > 1:
        ctx.book.problems.append(
            f"cannot use ROLE: {','.join(roles)} with {ctx.placement.name('nnodes')}={ctx.placement.nnodes}: "
            "two workers of several nodes would share one container; give each its own"
        )
    elif gpus > ctx.settings.gpus_per_node:
        ctx.book.problems.append(
            f"cannot use ROLE: {','.join(roles)}: together they take {gpus} GPUs of "
            f"{ctx.settings.gpus_per_node}; "
            "lower GLM47_PREFILL_TP or GLM47_DECODE_TP, or give each its own container"
        )


def check_given_gpus(ctx: Context, splits: list[parallelism.Split]) -> None:
    """What the container was given must hold what this node's ranks take."""
    if ctx.facts.gpus is None or not splits:
        return
    variable, given = ctx.facts.gpus
    needed = sum(-(-split.gpus // split.nnodes) for split in splits)
    own = ctx.settings.gpus_per_node
    if needed > given:
        ctx.book.problems.append(
            f"cannot use GLM47_GPUS_PER_NODE: {own}: the ranks of this node take {needed} GPUs, and "
            f"{variable} gives {given or 'none'}; "
            + (f"set it to {given}, or give the container {needed}" if given else f"give it {needed}")
        )
    elif given > own:
        ctx.book.warnings.append(
            f"{variable} gives {given} GPUs, and GLM47_GPUS_PER_NODE is {own}: the others stay idle"
        )


def check_placement(ctx: Context, given: arguments.Options) -> None:
    """The rank must be one of the worker's, and must know its leader."""
    if ctx.one_machine:
        return
    place = ctx.placement
    numbers = Numbers(ctx, given)
    nnodes = max(1, numbers.get("--nnodes", place.nnodes, "nnodes"))
    rank = numbers.get("--node-rank", place.node_rank, "node_rank")
    if rank >= nnodes:
        label = numbers.label("--node-rank", place.name("node_rank"))
        ctx.book.problems.append(
            f"cannot use {label}: {rank}: ranks of {nnodes} node{'s' if nnodes > 1 else ''} are "
            f"0 to {nnodes - 1}; lower it, or raise {place.name('nnodes')}"
        )
    extra = given.get("--dist-init-addr")
    if nnodes > 1 and place.leader_address is None and not (extra is not None and extra.source):
        ctx.book.problems.append(
            f"cannot use {numbers.label('--nnodes', place.name('nnodes'))}: {nnodes}: "
            "the ranks do not know their leader; set GLM47_LEADER_ADDRESS to the address of rank 0"
        )


def _quantization(ctx: Context, given: arguments.Options, numbers: Numbers) -> None:
    model, asked = ctx.facts.model.quantization, given.value("--quantization")
    known = FP8_TO_FP4.holds(ctx.facts.engine.sglang) is True
    if model is None or asked is None or not quantization.refused(asked, model, fp8_to_fp4=known):
        return
    found = "not quantized" if model == quantization.NONE else f"quantized with {model}"
    problem = (
        f"cannot use {numbers.label('--quantization', 'GLM47_QUANTIZATION')}: {asked}: the model at "
        f"{ctx.settings.model_path} is {found}; set GLM47_QUANTIZATION=none, or serve another checkpoint"
    )
    if problem not in ctx.book.problems:
        ctx.book.problems.append(problem)


def _runner(
    ctx: Context, given: arguments.Options, numbers: Numbers, split: parallelism.Split, nvfp4: bool
) -> None:
    engine = ctx.facts.engine
    runner = given.value("--moe-runner-backend") or "auto"
    label = numbers.label("--moe-runner-backend", "GLM47_MOE_RUNNER")
    chosen, reason = moe_runner.choose(
        engine.sglang, engine.flashinfer, quantization=given.value("--quantization") or sglang.UNQUANTIZED
    )
    if label == "GLM47_MOE_RUNNER" and ctx.settings.moe_runner == "auto":
        note = f"MoE runner {chosen}: {reason}"
        if note not in ctx.book.notes:
            ctx.book.notes.append(note)
    elif nvfp4 and runner == moe_runner.TRTLLM:
        fault = moe_runner.trtllm_fault(engine.sglang, engine.flashinfer)
        if fault is not None:
            ctx.book.problems.append(
                f"cannot use {label}: {runner}: {fault}; use {moe_runner.CUTLASS} or auto"
            )
    if split.ep > 1 and nvfp4 and split.tp % split.ep == 0:
        _experts(ctx, numbers.label("--ep-size", "GLM47_EP"), runner, split)


def _experts(ctx: Context, label: str, runner: str, split: parallelism.Split) -> None:
    version = ctx.facts.engine.sglang or PINNED["sglang"]
    if runner == moe_runner.CUTLASS and split.ep != split.tp:
        ctx.book.problems.append(
            f"cannot use {label}: {split.ep}: {runner} takes EP 1 or EP equal to TP only; use 1 or {split.tp}"
        )
    elif MIXES_EXPERT_SCALES.holds(version) is False:
        return
    elif runner not in (moe_runner.CUTLASS, moe_runner.TRTLLM):
        ctx.book.problems.append(
            f"cannot use {label}: {split.ep}: sglang {version} mixes global and local "
            f"expert scales with the MoE runner {runner}; use 1, or GLM47_MOE_RUNNER={moe_runner.CUTLASS} "
            "with EP equal to TP"
        )
    else:
        ctx.book.warnings.append(
            f"EP {split.ep} with {runner} was read in sglang {version}, not run: try it before you rely on it"
        )


def _padding(ctx: Context, role: str, split: parallelism.Split) -> None:
    s = ctx.settings
    version = ctx.facts.engine.sglang
    if s.modelopt_patch != "pad" and ASSERTS_W2_SCALES.holds(version):
        text = f"sglang {version} stops at every TP while it loads the experts"
        if s.allow_wrong_padding:
            ctx.book.warnings.append(f"GLM47_MODELOPT_PATCH={s.modelopt_patch}: {text}")
        else:
            ctx.book.problems.append(
                f"cannot use GLM47_MODELOPT_PATCH: {s.modelopt_patch}: {text}; use pad "
                "(GLM47_ALLOW_WRONG_PADDING=true tries it all the same)"
            )
        return
    width = parallelism.width_per_rank(ctx.facts.model.moe_intermediate_size, split.tp, split.ep)
    if width is None or width % parallelism.NVFP4_BLOCK or width == parallelism.padded_width(width):
        return
    padded = parallelism.padded_width(width)
    text = f"MoE width per rank {width} ({role}, TP {split.tp})"
    if s.modelopt_patch == "pad":
        ctx.book.warnings.append(
            f"{text} is padded to {padded}: {parallelism.waste(width):.0%} more expert weight and work "
            f"than needed; workers of TP {split.tp // 2} use the same GPUs without padding"
        )
    elif s.modelopt_patch == "off":
        ctx.book.problems.append(
            f"cannot use GLM47_MODELOPT_PATCH: off: {text} needs padding to {padded}, which sglang asserts "
            "on; use pad, or a TP whose width is a multiple of 64"
        )
    elif not s.allow_wrong_padding:
        ctx.book.problems.append(
            f"cannot use GLM47_MODELOPT_PATCH: assert: {text} is then padded wrongly: garbage "
            "answers; use pad (GLM47_ALLOW_WRONG_PADDING=true serves them all the same)"
        )
    else:
        ctx.book.warnings.append(
            f"{text} is padded wrongly by GLM47_MODELOPT_PATCH=assert: answers are garbage"
        )
