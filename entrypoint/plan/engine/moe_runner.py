"""Which MoE runner serves GLM-4.7-NVFP4 rightly on the installed SGLang and FlashInfer (`releases`). Pure."""

from __future__ import annotations

from entrypoint.plan.releases import NAMES_ROUTING, PINS_RIGHT_FLASHINFER, ROUTES_GLM

TRTLLM = "flashinfer_trtllm"
CUTLASS = "flashinfer_cutlass"


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
