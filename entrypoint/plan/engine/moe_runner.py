"""Which MoE runner serves GLM-4.7-NVFP4 rightly on the installed SGLang and FlashInfer.

- SGLang before 0.5.8: `glm4_moe.py` passes no `routing_method_type`, on which `FlashInferFP4MoE.forward`
  asserts, so `flashinfer_trtllm` cannot serve one token.
- FlashInfer before 0.6.2: its routing gives garbage for GLM (FlashInfer 2313, 2485). SGLang 0.5.8 pins 0.6.1.
- SGLang 0.5.9 and later pin 0.6.3 or newer: right.
"""

from __future__ import annotations

from entrypoint.node.versions import older

TRTLLM = "flashinfer_trtllm"
CUTLASS = "flashinfer_cutlass"

_FIRST_SGLANG = "0.5.8"
_FIRST_FLASHINFER = "0.6.2"
_FIRST_SGLANG_THAT_PINS_IT = "0.5.9"


def trtllm_fault(sglang: str | None, flashinfer: str | None) -> str | None:
    """Why `flashinfer_trtllm` is known to be wrong on this pair; None when it is right or not known."""
    if older(sglang, _FIRST_SGLANG):
        return f"sglang {sglang} gives flashinfer_trtllm no routing method for GLM ({_FIRST_SGLANG} does)"
    if older(flashinfer, _FIRST_FLASHINFER):
        return f"flashinfer {flashinfer} routes GLM wrongly: garbage answers (right from {_FIRST_FLASHINFER})"
    if flashinfer is None and older(sglang, _FIRST_SGLANG_THAT_PINS_IT):
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
