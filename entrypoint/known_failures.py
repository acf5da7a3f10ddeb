"""Failures that users of this stack meet: a line's signature, its cause, what to do.

Records are in order of precedence: the cause that explains the others comes first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class KnownFailure:
    """One failure that a log line gives away."""

    key: str
    signature: re.Pattern[str]
    """Searched for in single lines."""
    cause: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.cause}: {self.remedy}"


def _known(key: str, signature: str, cause: str, remedy: str) -> KnownFailure:
    return KnownFailure(key, re.compile(signature), cause, remedy)


KNOWN_FAILURES: tuple[KnownFailure, ...] = (
    _known(
        "bos-token",
        r"missing bos_token_id in generation_config\.json",
        "this Dynamo needs bos_token_id, which GLM-4.7 leaves out",
        "serve the directory that `glm47-runner model prepare` makes, or use Dynamo 0.9.1 or newer",
    ),
    _known(
        "expert-parallel-scales",
        r"The size of tensor a \(160\) must match the size of tensor b \((?:80|40|20|10)\)",
        "this SGLang mixes global and local expert scales of NVFP4 under expert parallelism",
        "set GLM47_EP=1, or GLM47_MOE_RUNNER=flashinfer_cutlass",
    ),
    _known(
        "modelopt-scale-width",
        r"Expected \w+_weight_scale\.dim\(2\) to be divisible by 16",
        "this SGLang refuses GLM-4.7's expert width per rank",
        "set GLM47_MODELOPT_PATCH=pad",
    ),
    _known(
        "modelopt-gated-padding",
        r"intermediate size required padding, but padding is also implemented for gated activations",
        "the expert width per rank is not a multiple of 64",
        "set GLM47_MODELOPT_PATCH=pad, or choose a GLM47_TP whose width is",
    ),
    _known(
        "shuffle-padding",
        r"assert M % 128 == 0|get_shuffle_matrix_sf_a_row_indices",
        "flashinfer_trtllm needs padded expert scales",
        "set GLM47_MODELOPT_PATCH=pad",
    ),
    _known(
        "moe-routing",
        r"has not been adapted for the current moe layer",
        "this SGLang's GLM code gives flashinfer_trtllm no routing method",
        "set GLM47_MOE_RUNNER=flashinfer_cutlass, or use SGLang 0.5.9 or newer",
    ),
    _known(
        "unknown-parser",
        r"invalid choice: '?glm4\w*'?|not a valid (?:tool call|reasoning) parser",
        "this Dynamo or SGLang does not know the parser that was asked for",
        "leave the parser out, or use a newer base image",
    ),
    _known(
        "model-not-visible",
        r"Failed to fetch model '.*' from HuggingFace",
        "the frontend cannot see the model directory at the worker's path",
        "mount the model at the same GLM47_MODEL_PATH in every container",
    ),
    _known(
        "port-taken",
        r"[Aa]ddress already in use",
        "a port that this process needs is taken",
        "see the ports in `glm47-runner plan`, and end what holds the one named in the log or move it",
    ),
    _known(
        "shm-too-small",
        r"Error while creating shared memory segment /dev/shm/nccl-",
        "/dev/shm is too small for NCCL",
        "run the container with --ipc host or a larger --shm-size; in Kubernetes mount a sized /dev/shm",
    ),
    _known(
        "gpu-memory",
        r"CUDA out of memory|torch\.(?:cuda\.)?OutOfMemoryError|Not enough memory\. Please try to increase",
        "the GPU's memory does not hold weights, KV cache and graphs together",
        "see what else uses the GPU, or change --mem-fraction-static",
    ),
    _known(
        "nvls",
        r"NVLS.*(?:CUDA failure|Cuda failure|error) 401|(?i:cuda (?:failure|error)) 401.*|NVLS multicast",
        "NVLink multicast is not available: the Fabric Manager or IMEX is down",
        "start it on every node, or set NCCL_NVLS_ENABLE=0",
    ),
    _known(
        "cuda-ipc-imex",
        r"UCX\s+ERROR.*cuda_ipc",
        "GPU memory cannot be shared between nodes without an IMEX channel",
        "give the container /dev/nvidia-caps-imex-channels, or take cuda_ipc out of UCX_TLS",
    ),
    _known(
        "ucx-lane",
        r"failed to select lane",
        "UCX_TLS leaves out a transport that GPU memory needs",
        "add cuda_ipc and cuda_copy to UCX_TLS",
    ),
    _known(
        "nixl-disconnect",
        r"NIXL_ERR_REMOTE_DISCONNECT",
        "a KV transfer began before its peer was ready, or the peer has left",
        "look at the other role's log; start decode after prefill is ready",
    ),
    _known(
        "nixl-backend",
        r"NIXL_ERR_BACKEND",
        "the transport under NIXL gave an error",
        "see the UCX lines before it; pin UCX_NET_DEVICES and check UCX_TLS",
    ),
    _known(
        "kv-transfer-stalled",
        r"KVPoll\.WaitingForInput|timed out after .* in KVPoll",
        "a KV transfer between prefill and decode stood still",
        "pin UCX_NET_DEVICES to the fabric's devices and check the fabric",
    ),
    _known(
        "decode-without-prefill",
        r"bootstrap_info is required",
        "decode was given a request that no prefill worker had seen",
        "run the frontend with --enforce-disagg, and wait for prefill before sending requests",
    ),
    _known(
        "bootstrap-refused",
        r":30001\b.*[Cc]onnection refused|[Cc]onnection refused.*:30001\b",
        "the bootstrap server lives on the prefill leader and did not answer",
        "check that the prefill leader runs and that its address is the one decode uses",
    ),
    _known(
        "nats",
        r"(?i)failed to connect to nats|JetStream not available|no responders.*jetstream",
        "NATS is missing, has no JetStream, or is older than 2.10",
        "start nats-server 2.10 or newer with -js first, and check NATS_SERVER",
    ),
    _known(
        "etcd-lease",
        r"(?i)unable to (?:maintain|create) lease|lease (?:keep.?alive )?(?:expired|revoked|lost|failed)",
        "etcd was out of reach for longer than a lease lasts (10 s)",
        "keep etcd's disk and node calm, and check the network to ETCD_ENDPOINTS",
    ),
    _known(
        "half-written-key",
        r"EOF while parsing a value",
        "the frontend read a half-written key of the file store",
        "restart the frontend once the worker is ready, or use etcd",
    ),
    _known(
        "watchdog",
        r"[Ww]atchdog timeout",
        "one step took longer than SGLang's watchdog allows",
        "raise --watchdog-timeout in GLM47_EXTRA_ARGS; while capturing graphs, find the rank that is behind",
    ),
    _known(
        "capture-collective",
        r"NET/Socket.*socket progress error|socket progress error",
        "a collective between nodes broke, usually while one rank captured CUDA graphs",
        "set NCCL_TIMEOUT and the MNNVL variables on every rank, and raise --dist-timeout",
    ),
    _known(
        "nccl-timeout",
        r"WorkNCCL\(.*Timeout\(ms\)=\d+",
        "a collective timed out: one rank is behind or gone",
        "find the rank that is behind in the other ranks' logs, or raise --dist-timeout",
    ),
    _known(
        "scheduler-died",
        r"Rank \d+ scheduler (?:died|is dead)|Subprocess \w+ \(pid=\d+\) crashed|exit code: -9\b"
        r"|Scheduler or DataParallelController \d+ terminated with -\d+",
        "an engine process was killed; exit code -9 is most often the out-of-memory killer",
        "see the lines of that rank above, and the memory limit of the container",
    ),
)


_LOST_RANK = re.compile(
    r"gloo/transport/tcp/\S+ Read error \[(?P<gloo_reset>[^\]\s]+)\]:\d+: Connection reset by peer"
    r"|gloo/transport/tcp/\S+ Connection closed by peer \[(?P<gloo_closed>[^\]\s]+)\]:\d+"
    r"|NCCL WARN .*Connection closed by remote peer (?P<nccl_closed>[^<\s]+)<\d+>"
    r"|NCCL WARN .*Call to \w+ (?:from|to) (?P<nccl_reset>[^<\s]+)<\d+> failed : Connection reset by peer"
)
"""A rank says that its connection to another one broke. A time-out is not meant: that one may live."""


def lost_rank(lines: Iterable[str]) -> str | None:
    """The address of the first rank whose loss the end of a log shows; None when it shows none."""
    for line in lines:
        if found := _LOST_RANK.search(line):
            return next(text for text in found.groups() if text is not None)
    return None


def failure_hint(lines: Iterable[str]) -> str | None:
    """What is known about the failure that `lines` (a log's last ones) show; None when nothing is."""
    text = [*lines]
    for known in KNOWN_FAILURES:
        if any(known.signature.search(line) for line in text):
            return str(known)
    return None
