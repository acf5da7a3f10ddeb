"""Failures that users of this stack meet: signature, cause, what to do, and where the wording is from.

Records are in order of precedence: the cause that explains the others comes first.
"""

from __future__ import annotations

from entrypoint.supervise.failures.lines import Level
from entrypoint.supervise.failures.machine_records import MACHINE, NETWORK
from entrypoint.supervise.failures.signature import KnownFailure, known

MODEL: tuple[KnownFailure, ...] = (
    known(
        "bos-token",
        r"\bmissing bos_token_id in generation_config\.json",
        "this Dynamo needs bos_token_id, which GLM-4.7 leaves out",
        "serve the directory that `glm47-runner model prepare` makes, or use Dynamo 0.9.1 or newer",
        "Dynamo 0.8.1 (Rust); dynamo 5392, 5394",
        least=Level.WARNING,
    ),
    known(
        "worker-rejected",
        r"\bRejected incompatible workers; the first accepted configuration retains the WorkerSet\b"
        r"|\bChecksum for new (?:worker|model) does not match existing ",
        "the frontend gives a worker no requests: its model, or the model's path, is not the first worker's",
        "give all workers one GLM47_MODEL_PATH and GLM47_RUN_DIR; another model serves when the old left",
        "Dynamo 0.8.1 to 1.6.1 (Rust), discovery/watcher.rs, controller.rs",
        least=Level.WARNING,
    ),
    known(
        "quantization-mismatch",
        r"Quantization method specified in the model config \(\S+\) does not match the quantization method",
        "the model is not quantized as GLM47_QUANTIZATION says",
        "serve the NVFP4 checkpoint, or set GLM47_QUANTIZATION to none or what the model's config.json says",
        "sglang 0.5.6.post2 to 0.5.23, configs/model_config.py",
        raised=True,
    ),
    known(
        "expert-parallel-scales",
        r"The size of tensor a \(160\) must match the size of tensor b \((?:80|40|20|10)\)",
        "this SGLang mixes global and local expert scales of NVFP4 under expert parallelism",
        "set GLM47_EP=1, or GLM47_MOE_RUNNER=flashinfer_cutlass",
        "PyTorch's broadcast error, raised in sglang 0.5.6.post2, modelopt_quant.py",
        raised=True,
    ),
    known(
        "modelopt-scale-width",
        r"Expected \w+_weight_scale\.dim\(2\) to be divisible by 16",
        "this SGLang refuses GLM-4.7's expert width per rank",
        "set GLM47_MODELOPT_PATCH=pad",
        "sglang 0.5.6.post2, modelopt_quant.py; sglang 12497",
        raised=True,
    ),
    known(
        "modelopt-gated-padding",
        r"intermediate size required padding, but padding is also implemented for gated activations",
        "the expert width per rank is not a multiple of 64",
        "set GLM47_MODELOPT_PATCH=pad, or choose a GLM47_TP whose width is",
        "sglang 0.5.6.post2 to 0.5.23, modelopt_quant.py; sglang 30887",
        raised=True,
    ),
    known(
        "shuffle-padding",
        r"^AssertionError at `assert M % 128 == 0`",
        "flashinfer_trtllm needs padded expert scales",
        "set GLM47_MODELOPT_PATCH=pad",
        "flashinfer 0.5.3, get_shuffle_matrix_sf_a_row_indices; vllm 46879",
        raised=True,
    ),
    known(
        "moe-routing",
        r"has not been adapted for the current moe layer",
        "this SGLang's GLM code gives flashinfer_trtllm no routing method",
        "set GLM47_MOE_RUNNER=flashinfer_cutlass, or use SGLang 0.5.9 or newer",
        "sglang 0.5.6.post2, fused_moe_triton/layer.py",
        raised=True,
    ),
    known(
        "flashinfer-cannot-write",
        r"Failed to generate Cutlass kernels: \[Errno (?:13|30)\]"
        r"|\[Errno (?:13|30)\] .*/flashinfer(?:_cubin/cubins|/data)/",
        "FlashInfer writes into its own package, which is read-only or another user's",
        "build the image with FLASHINFER_ARCHS for this GPU; `glm47-runner check` says more",
        "flashinfer 0.5.3, jit/fused_moe.py; 0.6.12, jit/cubin_loader.py",
        raised=True,
    ),
    known(
        "invalid-probabilities",
        r"probability tensor contains either [`'\"]?inf[`'\"]?, [`'\"]?nan[`'\"]? or element < 0"
        r"|Detected errors during sampling! NaN in the logits",
        "the model computed inf or NaN",
        "check GLM47_MODELOPT_PATCH, GLM47_MOE_RUNNER, GLM47_KV_CACHE_DTYPE and the files' checksums",
        "PyTorch, aten/native/cuda/MultinomialKernel; sglang 0.5.6.post2, layers/sampler.py",
        raised=True,
    ),
    known(
        "unknown-parser",
        r"\binvalid choice: '?glm4\w*'?|\bnot a valid (?:tool call|reasoning) parser\b",
        "this Dynamo or SGLang does not know the parser that was asked for",
        "leave the parser out, or use a newer base image",
        "Dynamo 0.8.1, argparse",
    ),
    known(
        "unrecognized-arguments",
        r"(?:^|: )error: unrecognized arguments: ",
        "this release does not know an argument that it was given",
        "take it out of GLM47_EXTRA_ARGS or the role's GLM47_*_EXTRA_ARGS, or use a newer base image",
        "Python's argparse",
    ),
    known(
        "chat-template",
        r"\bchat_template field is required in the tokenizer_config\.json file",
        "the model has no chat template, and Dynamo's frontend lists none without one",
        "fetch chat_template.jinja or tokenizer_config.json again (`glm47-runner model check`)",
        "Dynamo 0.8.1 (Rust), PromptFormatter",
        least=Level.WARNING,
    ),
    known(
        "model-not-visible",
        r"\bFailed to fetch model '.*' from HuggingFace",
        "the frontend cannot see the model directory at the worker's path",
        "mount the model at the same GLM47_MODEL_PATH in every container",
        "Dynamo 0.8.1 (Rust)",
        least=Level.WARNING,
    ),
)

PROCESSES: tuple[KnownFailure, ...] = (
    known(
        "watchdog",
        r"\b[Ww]atchdog timeout \(self\.watchdog_timeout=[\d.]+(?:, self\.soft=False)?\)",
        "one step took longer than SGLang's watchdog allows",
        "find the rank that is behind; if none is, raise --watchdog-timeout in GLM47_EXTRA_ARGS",
        "sglang 0.5.6.post2, scheduler_runtime_checker_mixin.py; 0.5.9 on, utils/watchdog.py; sglang 26137",
    ),
    known(
        "scheduler-killed",
        r"\bscheduler (?:died|is dead)\b[^(]*\(exit code: (?:-9|137)\)|\bcrashed with exit code (?:-9|137)\b"
        r"|\bScheduler or DataParallelController \d+ terminated with (?:-9|137)\b",
        "an engine process was killed (SIGKILL), most often by the out-of-memory killer",
        "see the memory limit of the container and the node's kernel log",
        "sglang 0.5.6.post2 to 0.5.23, entrypoints/engine.py; 0.5.14, watchdog",
    ),
    known(
        "scheduler-crashed",
        r"\bscheduler (?:died|is dead)\b[^(]*\(exit code: (?:-[4678]|-11|13[4569])\)"
        r"|\bcrashed with exit code (?:-[4678]|-11|13[4569])\b"
        r"|\bScheduler or DataParallelController \d+ terminated with (?:-[4678]|-11|13[4569])\b",
        "an engine process crashed in native code (SIGABRT, SIGSEGV or the like)",
        "see that rank's lines before its end, and the node's kernel log for a GPU fault (Xid)",
        "sglang 0.5.6.post2 to 0.5.23, entrypoints/engine.py; 0.5.14, watchdog",
    ),
    known(
        "peer-lost",
        r"/gloo/\S+\] (?:Read|Write) error .*(?:reset by peer|[Bb]roken pipe)|Connection closed by peer \["
        r"|\bncclRemoteError\b|\bremote process exited or there was a network error",
        "the connection to another rank was lost",
        "see the other ranks' logs: the one that ended first has the cause",
        "gloo, transport/tcp/pair.cc; NCCL",
        raised=True,
        vague=True,
    ),
)

KNOWN_FAILURES = (*MODEL, *MACHINE, *NETWORK, *PROCESSES)
