"""Which MoE runner serves GLM-4.7-NVFP4 rightly on the installed SGLang and FlashInfer (`releases`). Pure."""

from __future__ import annotations

from entrypoint.plan.releases import NAMES_ROUTING, PINS_RIGHT_FLASHINFER, ROUTES_GLM

TRTLLM = "flashinfer_trtllm"
CUTLASS = "flashinfer_cutlass"
CUTEDSL = "flashinfer_cutedsl"
MIXING = ("cutlass", "triton")
"""With expert parallelism they multiply input scales of all experts with the weight scales of a rank's own
(`The size of tensor a (160) must match …`). flashinfer_cutlass and flashinfer_trtllm take one scale for all,
flashinfer_cutedsl cuts out the rank's: `process_weights_after_loading` of modelopt_quant.py, the same in
0.5.6.post2, 0.5.7, 0.5.10, 0.5.14, 0.5.17, 0.5.20 and 0.5.23."""
DISPATCHERS = ("deepep", "mooncake")
"""Values of --moe-a2a-backend with which SGLang sets EP to TP, whatever is asked for (server_args.py)."""


def mixes_scales(runner: str, sglang: str | None) -> bool:
    """Whether expert parallelism with NVFP4 cannot work with `runner`; `auto` is SGLang's own choice."""
    return runner in MIXING or (runner == "auto" and NAMES_ROUTING.holds(sglang) is False)


def trtllm_fault(sglang: str | None, flashinfer: str | None) -> str | None:
    """Why `flashinfer_trtllm` is known to be wrong on this pair; None when it is right or not known."""
    if NAMES_ROUTING.holds(sglang) is False:
        return (
            f"sglang {sglang} gives flashinfer_trtllm no routing method for GLM ({NAMES_ROUTING.since} does)"
        )
    if ROUTES_GLM.holds(flashinfer) is False:
        return f"flashinfer {flashinfer} routes GLM wrongly: garbage answers (right from {ROUTES_GLM.since})"
    if flashinfer is None and PINS_RIGHT_FLASHINFER.holds(sglang) is False:
        return f"sglang {sglang} pins flashinfer 0.6.1, which routes GLM wrongly: garbage answers"
    return None


def choose(
    sglang: str | None, flashinfer: str | None, *, quantization: str = "modelopt_fp4"
) -> tuple[str, str]:
    """(runner, reason) for ``GLM47_MOE_RUNNER=auto``."""
    if quantization != "modelopt_fp4":
        return "auto", f"SGLang's own choice: quantization is {quantization}, not modelopt_fp4"
    fault = trtllm_fault(sglang, flashinfer)
    if fault is not None:
        return CUTLASS, fault
    if sglang is None:
        return TRTLLM, "the original deployment's choice: the installed sglang is not known"
    return TRTLLM, f"right for GLM on sglang {sglang} and flashinfer {flashinfer or '(the one it pins)'}"
