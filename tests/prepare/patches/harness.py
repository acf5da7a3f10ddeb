"""Drives the real `ModelOptNvFp4FusedMoEMethod` of an sglang release on a CPU, and measures what comes out.

Runs in an environment that has torch and nothing else: ``python harness.py < request.json > rows.json``. The
request names a directory with an unpacked sglang and one with an unpacked flashinfer, widths, runners, and
whether experts are gated; the answer is one row per combination. What the release does with tensors is real:
`create_weights`, `process_weights_after_loading`, block-scale swizzle, padding, shuffling, flashinfer's index
functions. Everything else (CUDA, kernels, distributed state, model zoo) is a stub that answers False.
"""

from __future__ import annotations

import importlib
import json
import sys
import types
from pathlib import Path

import torch
from engine_stubs import Missing
from harness_stubs import THIRD, Backend, Finder

EXPERTS, HIDDEN = 2, 256

LEVELS = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=torch.float64)


def dequantise(packed: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """[M, K/2] bytes and [M, K/16] FP8 scales to [M, K] doubles."""
    codes = packed.view(torch.uint8).long()
    values = torch.stack([LEVELS[codes & 15], LEVELS[codes >> 4]], dim=-1).flatten(1)
    return values * scale.view(torch.float8_e4m3fn).double().repeat_interleave(16, dim=1)


def unswizzle(scale: torch.Tensor, rows: int, cols: int) -> torch.Tensor:
    """The inverse of `interleave`, cut to `rows` by `cols`."""
    m, k = -(-rows // 128) * 128, -(-cols // 4) * 4
    tiles = scale.view(torch.uint8).reshape(-1)[: m * k].reshape(m // 128, k // 4, 32, 4, 4)
    return tiles.permute(0, 3, 2, 1, 4).reshape(m, k)[:rows, :cols].contiguous()


def activate(first: torch.Tensor, second: torch.Tensor | None) -> torch.Tensor:
    if second is None:
        return torch.relu(first) ** 2
    return torch.nn.functional.silu(first) * second


def expert(w13: torch.Tensor, w2: torch.Tensor, x: torch.Tensor, gated: bool) -> torch.Tensor:
    """W2 @ (silu(W1 x) * (W3 x)), the boundary of W1 and W3 in the middle, as every kernel takes it."""
    if not gated:
        hidden = activate(w13 @ x, None)
    else:
        half = w13.shape[0] // 2
        hidden = activate(w13[:half] @ x, w13[half:] @ x)
    n = min(w2.shape[1], hidden.shape[0])
    return w2[:, :n] @ hidden[:n]


class QuantConfig:
    """What the release reads of its ModelOptFp4Config."""

    group_size = 16
    is_checkpoint_nvfp4_serialized = True
    use_per_token_activation = False

    @staticmethod
    def get_name():
        return "modelopt_fp4"


def make_layer(module, width: int, gated: bool):
    """(method, layer, checkpoint): a layer made by the release's `create_weights`, filled as its loader does.

    The checkpoint is random: per expert w13, its scales, w2, its scales, none of them padded.
    """
    method = module.ModelOptNvFp4FusedMoEMethod(QuantConfig())
    layer = torch.nn.Module()
    layer.moe_runner_config = types.SimpleNamespace(
        is_gated=gated, activation="silu" if gated else "relu2", gemm1_clamp_limit=None, swiglu_limit=None,
        gemm1_alpha=None, intermediate_size_per_partition=width,
    )  # fmt: skip
    layer.num_experts = layer.num_local_experts = EXPERTS
    layer.moe_ep_size, layer.moe_ep_rank, layer.moe_tp_size, layer.moe_tp_rank = 1, 0, 1, 0
    layer.dispatcher = types.SimpleNamespace(set_quant_config=lambda config: None)
    layer._cutedsl_wrapper = None
    method.create_weights(layer, EXPERTS, HIDDEN, width, torch.bfloat16, weight_loader=lambda *a, **k: None)
    generator = torch.Generator().manual_seed(width)
    shards = 2 if gated else 1

    def weight(*shape):
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

    def scale(*shape):
        return (torch.rand(shape, generator=generator) + 0.25).to(torch.float8_e4m3fn).view(torch.uint8)

    w13, s13 = weight(EXPERTS, shards, width, HIDDEN // 2), scale(EXPERTS, shards, width, HIDDEN // 16)
    w2, s2 = weight(EXPERTS, HIDDEN, width // 2), scale(EXPERTS, HIDDEN, width // 16)
    for name, values in (
        ("w13_weight", w13),
        ("w13_weight_scale", s13),
        ("w2_weight", w2),
        ("w2_weight_scale", s2),
    ):
        data = getattr(layer, name).data.view(torch.uint8)
        data.zero_()
        if values.dim() == 4:
            data.unflatten(1, (shards, -1))[:, :, :width] = values
        else:
            data[:, :, : values.shape[2]] = values
    for name in ("w13_weight_scale_2", "w2_weight_scale_2", "w13_input_scale", "w2_input_scale"):
        getattr(layer, name).data.fill_(1.0)
    return method, layer, [(w13[i].flatten(0, 1), s13[i].flatten(0, 1), w2[i], s2[i]) for i in range(EXPERTS)]


def processed(layer, runner: str, i: int, gated: bool):
    """(w13, w2, rows of w13, width that the kernel is told) of expert `i`, as its kernel reads them."""
    if runner == "flashinfer_cutlass":
        w13, w2 = layer.w13_weight.data[i], layer.w2_weight.data[i]
        s13 = unswizzle(layer.w13_blockscale_swizzled.data[i], w13.shape[0], HIDDEN // 16)
        s2 = unswizzle(layer.w2_blockscale_swizzled.data[i], HIDDEN, w2.shape[1] // 8)
        params = getattr(layer, "cutlass_moe_params", None)
        told = params.intermediate_size_per_partition if params is not None else w2.shape[1] * 2
        return dequantise(w13, s13), dequantise(w2, s2), w13.shape[0], told
    from flashinfer.fused_moe.core import (
        _maybe_get_cached_w3_w1_permute_indices as rows_of_w13,
    )
    from flashinfer.fused_moe.core import (
        get_w2_permute_indices_with_cache as rows_of_w2,
    )

    old = hasattr(layer, "gemm1_weights_fp4_shuffled")
    w13_name, w2_name = ("gemm1_{}_fp4_shuffled", "gemm2_{}_fp4_shuffled") if old else ("w13_{}", "w2_{}")
    kinds = ("weights", "scales") if old else ("weight", "weight_scale")
    names = [name.format(kind) for name in (w13_name, w2_name) for kind in kinds]
    w13, s13, w2, s2 = (getattr(layer, name).data[i].view(torch.uint8) for name in names)
    s13, s2 = unswizzle(s13, *s13.shape), unswizzle(s2, *s2.shape)
    rows = w13.shape[0]

    def back(tensor, indices_of, **extra):
        if indices_of is rows_of_w13 and not gated:
            extra["is_gated_act_gemm"] = False
        return tensor[torch.argsort(indices_of({}, tensor, 128, **extra).cpu())]

    told = layer.intermediate_size_per_partition
    return (
        dequantise(back(w13, rows_of_w13), back(s13, rows_of_w13, num_elts_per_sf=16)),
        dequantise(back(w2, rows_of_w2), back(s2, rows_of_w2, num_elts_per_sf=16)),
        rows,
        told,
    )


def case(module, runner: str, width: int, gated: bool) -> dict:
    """One row: relative error, or the error that the release raised."""
    row = {"runner": runner, "width": width, "gated": gated}
    Backend.name = runner
    try:
        method, layer, checkpoint = make_layer(module, width, gated)
        method.process_weights_after_loading(layer)
    except Exception as error:
        row["error"] = (
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else _where(error)}"
        )
        return row
    worst = 0.0
    for i, (w13, s13, w2, s2) in enumerate(checkpoint):
        x = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
        wanted = expert(dequantise(w13, s13), dequantise(w2, s2), x, gated)
        p13, p2, rows, told = processed(layer, runner, i, gated)
        got = expert(p13, p2, x, gated)
        worst = max(worst, float((got - wanted).norm() / wanted.norm()))
        row |= {"rows": rows, "told": told}
    row["relative_error"] = worst
    return row


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"in {trace.tb_frame.f_code.co_name}" if trace is not None else ""


def load(sglang: Path, flashinfer: Path | None):
    """The release's module, imported afresh."""
    for name in [n for n in sys.modules if n.partition(".")[0] in ("sglang", "flashinfer")]:
        del sys.modules[name]
    sys.meta_path[:] = [f for f in sys.meta_path if not isinstance(f, Finder)]
    roots = {"sglang": sglang}
    if flashinfer is not None:
        roots["flashinfer"] = flashinfer
    sys.meta_path.insert(0, Finder(roots))
    sys.meta_path.append(Missing(THIRD))
    return importlib.import_module("sglang.srt.layers.quantization.modelopt_quant")


def main() -> None:
    torch.set_num_threads(1)
    torch.Tensor.cuda = lambda self, *a, **k: self
    request = json.load(sys.stdin)
    flashinfer = Path(request["flashinfer"]) if request.get("flashinfer") else None
    rows = []
    for label, source in request["sources"].items():
        module = load(Path(source), flashinfer)
        for runner in request["runners"]:
            for gated in request["gated"]:
                for width in request["widths"]:
                    rows.append({"source": label, **case(module, runner, width, gated)})
    json.dump(rows, sys.stdout)


if __name__ == "__main__":
    main()
