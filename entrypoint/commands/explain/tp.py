"""What each tensor parallelism costs: the table of `plan --explain tp`.

The widths that kernels take are read in SGLang's releases: `flashinfer_cutlass` needs halves of 64 rows.
`flashinfer_trtllm` as well, but SGLang 0.5.8 to 0.5.22 rounds its width up to 128 before the weights are
loaded, and cuts the checkpoint at the rounded width: the last ranks hold less, or nothing. The sum is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from entrypoint.node import inspect
from entrypoint.node.facts import ModelFacts
from entrypoint.plan.engine import moe_runner, parallelism
from entrypoint.plan.releases import ASSERTS_W2_SCALES, ROUNDS_TRTLLM_WIDTH
from entrypoint.plan.table import table as table_lines
from entrypoint.settings.load import load

TRTLLM_ROWS = 128
"""What flashinfer_trtllm's width is rounded up to by SGLang 0.5.8 to 0.5.22."""


def trtllm_width(width: int, sglang: str | None) -> int:
    """The width that `flashinfer_trtllm` works on for a rank's `width` (the widest of the ranks)."""
    if ROUNDS_TRTLLM_WIDTH.holds(sglang):
        return -(-width // TRTLLM_ROWS) * TRTLLM_ROWS
    return parallelism.padded_width(width)


def explain(environ: Mapping[str, str], cwd: Path, nodes: int) -> str:
    """What each tensor parallelism costs on up to `nodes` nodes, as a table for people."""
    settings = load(environ, cwd).settings
    found = inspect.gather(settings, environ)
    return table(
        found.model,
        gpus_per_node=settings.gpus_per_node,
        nodes=nodes,
        sglang=found.engine.sglang,
        flashinfer=found.engine.flashinfer,
    )


def table(
    model: ModelFacts,
    *,
    gpus_per_node: int = 4,
    nodes: int = 4,
    sglang: str | None = None,
    flashinfer: str | None = None,
) -> str:
    """Two tables as text: every TP that suits the model on up to `nodes` nodes, and ways to split these.

    `sglang` and `flashinfer` are the installed versions; they decide which runner takes a width.
    """
    most = nodes * gpus_per_node
    choices = parallelism.allowed_tp(
        heads=model.heads, kv_heads=model.kv_heads, intermediate=model.moe_intermediate_size, most=most
    )
    fault = moe_runner.trtllm_fault(sglang, flashinfer)
    rows = [("TP", "nodes", "width per rank", "padded", "waste", "flashinfer_cutlass", "flashinfer_trtllm")]
    for tp in choices:
        width = model.moe_intermediate_size // tp
        padded = parallelism.padded_width(width)
        rows.append(
            (
                str(tp),
                str(-(-tp // gpus_per_node)),
                str(width),
                str(padded),
                _percent(padded, width),
                _needs(width, padded, ASSERTS_W2_SCALES.holds(sglang) is not False),
                "no" if fault else _trtllm(width, sglang),
            )
        )
    out = [
        f"MoE width {model.moe_intermediate_size}, {model.experts} experts; "
        f"sglang {sglang or 'not known'}, flashinfer {flashinfer or 'not known'}",
        "",
        *table_lines(rows),
        "",
        "patched: GLM47_MODELOPT_PATCH=pad. waste: expert weight and work added by padding to multiples of "
        f"{parallelism.GATED_ROWS}.",
    ]
    if fault:
        out.append(f"no: {fault}; use GLM47_MOE_RUNNER={moe_runner.CUTLASS}, or a newer base image.")
    return "\n".join([*out, "", *_splits(model, gpus_per_node, nodes, choices)]) + "\n"


def _splits(model: ModelFacts, gpus_per_node: int, nodes: int, choices: list[int]) -> list[str]:
    rows: list[tuple[str, ...]] = [("workers", "nodes each", "TP", "width per rank", "padded", "waste")]
    for workers in parallelism.divisors(nodes, nodes):
        tp = nodes // workers * gpus_per_node
        if tp in choices:
            width = model.moe_intermediate_size // tp
            padded = parallelism.padded_width(width)
            numbers = (workers, nodes // workers, tp, width, padded)
            rows.append((*map(str, numbers), _percent(padded, width)))
    return [f"{nodes} nodes of {gpus_per_node} GPUs as:", *table_lines(rows)]


def _needs(width: int, padded: int, scale_check: bool) -> str:
    return "yes, patched" if width != padded or scale_check else "yes"


def _trtllm(width: int, sglang: str | None) -> str:
    works_on = trtllm_width(width, sglang)
    return "yes" if works_on == width else f"yes, at {works_on} ({_percent(works_on, width)})"


def _percent(padded: int, width: int) -> str:
    return f"{padded / width - 1:.0%}"
