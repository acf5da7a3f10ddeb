"""Which files are corrected before anything starts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from entrypoint.node.facts import Facts
from entrypoint.plan.context import Context
from entrypoint.plan.engine.moe_runner import CUTLASS
from entrypoint.plan.engine.parallelism import padded_width, width_per_rank
from entrypoint.plan.releases import NAMES_ROUTING
from entrypoint.plan.roles import engine_env
from entrypoint.plan.types import FileEdit, FlashInfer, Process, SourcePatch

if TYPE_CHECKING:
    from entrypoint.plan.roles.rank import Rank

MODELOPT = "srt/layers/quantization/modelopt_quant.py"
GLM4_MOE = "srt/models/glm4_moe.py"
"""Inside the sglang package."""


def needs_view(facts: Facts) -> bool:
    """Whether bos_token_id is missing; published GLM-4.7 lacks it, and counts if none was read."""
    return facts.model.needs_bos_fix or not facts.model.config_read


def file_edits(ctx: Context, ranks: Sequence[Rank]) -> tuple[FileEdit, ...]:
    """The edits of this container, in the order they are made."""
    made = []
    if needs_view(ctx.facts):
        made.append(
            FileEdit(
                "bos_token_id",
                f"{ctx.model_path}/generation_config.json",
                f"bos_token_id {ctx.facts.model.bos_token_id} is missing; Dynamo before 0.9.1 needs it",
            )
        )
    s = ctx.settings
    if s.engine == "sglang" and ctx.worker_roles and s.modelopt_patch != "off":
        directory = ctx.facts.engine.sglang_dir
        texts = (_width(ctx, rank) for rank in ranks)
        text = ", ".join(dict.fromkeys(t for t in texts if t))
        made.append(
            FileEdit(
                "modelopt",
                f"{directory}/{MODELOPT}" if directory else f"sglang/{MODELOPT}",
                f"NVFP4 experts of any width per rank; here {text}",
                mode=s.modelopt_patch,
            )
        )
        if s.modelopt_patch == "pad" and NAMES_ROUTING.holds(ctx.facts.engine.sglang) is False:
            made.append(
                FileEdit(
                    "glm4_moe_routing",
                    f"{directory}/{GLM4_MOE}" if directory else f"sglang/{GLM4_MOE}",
                    "experts name no routing method; takes effect with flashinfer 0.6.2 and newer",
                    mode="on",
                )
            )
    return tuple(made)


def source_patch(ctx: Context) -> SourcePatch | None:
    """The edits of sglang's sources; None where no sglang runs, or none was found."""
    s, directory = ctx.settings, ctx.facts.engine.sglang_dir
    if s.engine != "sglang" or not ctx.worker_roles or s.modelopt_patch == "off" or directory is None:
        return None
    return SourcePatch(str(PurePosixPath(directory).parent), s.modelopt_patch, s.patch_mode)


def flashinfer(ctx: Context, processes: tuple[Process, ...]) -> FlashInfer | None:
    """The FlashInfer that this container's ranks import."""
    package = ctx.facts.engine.flashinfer_dir
    if ctx.settings.engine != "sglang" or not ctx.worker_roles or package is None:
        return None
    return FlashInfer(
        package,
        ctx.facts.engine.flashinfer_cubin_dir,
        f"{engine_env.cache(ctx)}/flashinfer-cubin",
        any(CUTLASS in process.argv for process in processes),
    )


def _width(ctx: Context, rank: Rank) -> str | None:
    width = width_per_rank(ctx.facts.model.moe_intermediate_size, rank.split.tp, rank.split.ep)
    if width is None:
        return None
    padded = padded_width(width)
    return f"{width}, padded to {padded}" if padded != width else f"{width}, which needs no padding"
