"""Profiles: values for what nobody set, each with its source and the release from which it holds. Pure.

A value is for an option or a variable of SGLang (or for `MNNVL`), by role. A setting or argument of a
person's own always wins. What is not known by a source is in no profile. docs/profiles.md is made of this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from entrypoint.node.versions import older
from entrypoint.plan.releases import (
    COPIES_UNEQUAL,
    LOADS_MTP,
    PICKS_FP4_GEMM,
    PINNED,
    READS_AHEAD,
    SPECULATES_V1,
    TITLES,
    Fact,
)

ROLES = ("prefill", "decode", "aggregated")
OFF = None
"""The option is left out."""
SWITCH = ""
"""The option is given, and takes no value."""
MNNVL = "multi-node NVLink"
"""No option: NCCL's and Mooncake's variables."""
OPTION = "--"
"""What an option begins with; what does not, and is not `MNNVL`, is a variable."""


@dataclass(frozen=True)
class Value:
    """What a profile gives for one option."""

    option: str
    by_role: Mapping[str, str | None]
    source: str
    since: Fact | None = None
    """What the installed release must have; None: every release that is planned for has it."""
    where: Fact | None = None
    """What it must have for this value alone: without it the rest of the profile holds."""
    gpus: int | None = None
    """GPUs of the worker that it is known for; None: any number."""


@dataclass(frozen=True)
class Profile:
    """One set of values."""

    name: str
    purpose: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Left:
    """What a person may look for in a profile, and why none has it."""

    what: str
    why: str


def _all(value: str | None) -> Mapping[str, str | None]:
    return dict.fromkeys(ROLES, value)


ORIGINAL = Profile(
    "original",
    "the deployment that this project continues, as it served",
    (
        Value("--attention-backend", _all("flashinfer"), "the original deployment"),
        Value("--enable-symm-mem", _all(SWITCH), "the original deployment"),
        Value("--mem-fraction-static", _all("0.85"), "the original deployment"),
        Value("--trust-remote-code", _all(SWITCH), "the original deployment"),
        Value(
            MNNVL,
            {"prefill": OFF, "decode": SWITCH, "aggregated": OFF},
            "the original deployment: decode workers only",
        ),
    ),
)
_READ_AHEAD = Value(
    "--weight-loader-prefetch-checkpoints",
    _all(SWITCH),
    "NVIDIA's srt-slurm recipes for GLM-5-NVFP4 on GB300 (SGLang 0.5.11 and 0.5.13)",
    where=READS_AHEAD,
)
BALANCED = Profile(
    "balanced",
    "what others' GB200 recipes and SGLang's own choices are today",
    (
        Value(
            "--attention-backend",
            _all(OFF),
            "SGLang chooses by the GPU, trtllm_mha on GB200 (server_args.py of 0.5.6.post2, 0.5.9, 0.5.14)",
        ),
        Value(
            "--enable-symm-mem",
            _all(OFF),
            "in no recipe for GLM-5 on GB200 or GB300, only in srt-slurm's low-latency one for DeepSeek-R1; "
            "it takes 4 GB of each GPU",
        ),
        Value(
            "--trust-remote-code",
            _all(OFF),
            "GLM-4.7 brings no code (no auto_map); a checkpoint that does gets it all the same",
        ),
        Value(
            "--mem-fraction-static",
            {"prefill": "0.8", "decode": "0.9", "aggregated": "0.85"},
            "the original deployment's last state, by role",
        ),
        Value(
            MNNVL,
            {"prefill": SWITCH, "decode": SWITCH, "aggregated": OFF},
            "all of srt-slurm's recipes for GB200 and GB300 that were read set it for both roles",
        ),
        _READ_AHEAD,
    ),
)
_MTP = "SGLang's cookbook for GLM-4.7 (EAGLE, 3 steps, top 1, 4 draft tokens); GLM-5's recipes have 2, 1, 3"
LATENCY = Profile(
    "latency",
    "balanced, and the model's own draft layer (MTP): fewer milliseconds a token while few requests run",
    (
        *BALANCED.values,
        Value("--speculative-algorithm", _all("EAGLE"), _MTP, LOADS_MTP),
        Value("--speculative-num-steps", _all("3"), _MTP, LOADS_MTP),
        Value("--speculative-eagle-topk", _all("1"), _MTP, LOADS_MTP),
        Value("--speculative-num-draft-tokens", _all("4"), _MTP, LOADS_MTP),
        Value(
            "--speculative-draft-model-quantization",
            _all("unquant"),
            "this checkpoint's draft layer is BF16; unset, SGLang takes the model's NVFP4 (sglang 22823)",
            LOADS_MTP,
        ),
        Value(
            "SGLANG_ENABLE_SPEC_V2",
            _all("1"),
            "the cookbook, with MTP; later releases do it unasked",
            where=SPECULATES_V1,
        ),
    ),
)
_SISTER = "Dynamo's recipe for a sister model, GLM-5-NVFP4 on GB200 (prefill TP 4, decode TP 16)"
_WIDE = f"{_SISTER}: decode has DP 16 and EP 16 there; GLM-5's attention is another one"
THROUGHPUT = Profile(
    "throughput",
    "balanced, and larger steps: more tokens a second over many requests, each one slower",
    (
        *BALANCED.values,
        Value(
            "--chunked-prefill-size",
            {"prefill": "32768", "decode": OFF, "aggregated": OFF},
            f"{_SISTER}, and srt-slurm's for GLM-5-NVFP4 on GB300; SGLang's own choice is 16384",
        ),
        Value("--max-prefill-tokens", {"prefill": "32768", "decode": OFF, "aggregated": OFF}, _SISTER),
        Value(
            "--stream-interval",
            _all("50"),
            f"{_SISTER}, both roles: streams come in larger pieces",
        ),
        Value(
            "--fp4-gemm-backend",
            _all("flashinfer_cutlass"),
            "srt-slurm's recipes for GLM-5-NVFP4 on GB300 and, for throughput, DeepSeek-R1 NVFP4 on GB200",
            where=PICKS_FP4_GEMM,
        ),
        *(
            Value(
                option,
                {"prefill": OFF, "decode": value, "aggregated": OFF},
                _WIDE,
                where=COPIES_UNEQUAL,
                gpus=16,
            )
            for option, value in (("--dp-size", "16"), ("--ep-size", "16"), ("--enable-dp-lm-head", SWITCH))
        ),
    ),
)
PROFILES: Mapping[str, Profile] = {
    profile.name: profile for profile in (ORIGINAL, BALANCED, LATENCY, THROUGHPUT)
}
SETTING = "GLM47_PROFILE"
LEFT = (
    Left(
        "--moe-runner-backend",
        "GLM47_MOE_RUNNER=auto is what is right for the installed SGLang and FlashInfer, in every profile",
    ),
    Left(
        "--max-running-requests, --cuda-graph-max-bs",
        "SGLang's own: 2048 or more requests, as the sister recipe sets, and graphs by the GPU's memory; the "
        "recipes' 128 a rank is for DP 16",
    ),
    Left(
        "DP attention and --load-balance-method of prefill",
        "Dynamo's sister recipe has DP 1 there, srt-slurm's DP 4 with total_tokens; prefill workers of the "
        "runner have DP 1: there is nothing to balance",
    ),
    Left(
        "--watchdog-timeout 300",
        "SGLang's counts a first request's compiling too, which takes longer with cold caches; it stays at "
        "GLM47_WATCHDOG_TIMEOUT. An engine that is ready and does not get on is ended by the runner, after "
        "GLM47_HANG_TIMEOUT (40 s)",
    ),
    Left(
        "UCX_TLS",
        "the recipes contradict each other (cuda_ipc,cuda_copy,rc and cuda_copy,cuda_ipc,sm,self,tcp); set "
        "in the environment it reaches both roles, unset UCX chooses",
    ),
    Left(
        "NCCL_TIMEOUT, TORCH_DISTRIBUTED_DEFAULT_TIMEOUT",
        "neither is in NCCL's sources, SGLang's (0.5.6.post2, 0.5.14, 0.5.23) or Dynamo's (0.8.1, 1.6.1), "
        "and PyTorch's ProcessGroupNCCL.hpp has no such name; what limits collectives is --dist-timeout "
        "(GLM47_DIST_TIMEOUT)",
    ),
    Left(
        "--migration-limit",
        "no recipe that was read sets it. Before Dynamo 1.0 it is a decode worker's "
        "(GLM47_DECODE_EXTRA_ARGS), from 1.0 on the frontend's (GLM47_FRONTEND_EXTRA_ARGS)",
    ),
    Left(
        "the router",
        "GLM47_ROUTER_MODE=kv pays where many requests share a long beginning, as in Dynamo's recipes for "
        "GLM-5.2 (64K in, 90 % cached); from Dynamo 1.3 on --router-session-affinity-ttl-secs in "
        "GLM47_FRONTEND_EXTRA_ARGS keeps a session where it was. Nothing here knows the traffic",
    ),
)
READ = "Dynamo's recipes for GLM-5-NVFP4 and GLM-5.2, NVIDIA's srt-slurm, NCCL's sources and the wheels"
"""On 2026-11-29."""


def values(
    name: str, role: str, installed: Mapping[str, str | None], gpus: int | None
) -> dict[str, str | None]:
    """By option, the value that profile `name` gives a worker of `role` with `gpus` GPUs.

    `installed`: versions, by package; one that is not known counts as the pinned one.
    """
    return {
        value.option: value.by_role[role]
        for value in PROFILES[name].values
        if kept_out(value, installed, gpus) is None
    }


def kept_out(value: Value, installed: Mapping[str, str | None], gpus: int | None) -> str | None:
    """Why a worker with `gpus` GPUs does not get `value`; None: it does."""
    if value.where is not None and (why := _lacks(value.where, installed)) is not None:
        return why
    if value.gpus is not None and value.gpus != gpus:
        return (
            f"it is known for a worker of {value.gpus} GPUs, and this one has {gpus or 'an unknown number'}"
        )
    return None


def misfit(profile: Profile, installed: Mapping[str, str | None]) -> str | None:
    """Why `profile` cannot be used with the `installed` versions, by package; None: it can.

    A release that is not known counts as the pinned one.
    """
    facts = dict.fromkeys(value.since for value in profile.values if value.since is not None)
    return next((why for fact in facts if (why := _lacks(fact, installed)) is not None), None)


def _lacks(fact: Fact, installed: Mapping[str, str | None]) -> str | None:
    if fact.holds_here(installed.get(fact.package)):
        return None
    version = installed.get(fact.package) or PINNED[fact.package]
    if fact.until is not None and not older(version, fact.until):
        return f"{TITLES[fact.package]} {version} is newer: before {fact.until}, {fact.what}"
    return f"{TITLES[fact.package]} {version} is older than {fact.since}, from which {fact.what}"
