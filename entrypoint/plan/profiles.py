"""Profiles: values for what nobody set, each with its source and the release from which it holds. Pure.

A value is for an option of SGLang (or for `MNNVL`), by role. A setting or argument of a person's own always
wins. What is not known by a source is in no profile. docs/profiles.md is made of this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from entrypoint.plan.releases import LOADS_MTP, PINNED, TITLES, Fact

ROLES = ("prefill", "decode", "aggregated")
OFF = None
"""The option is left out."""
SWITCH = ""
"""The option is given, and takes no value."""
MNNVL = "multi-node NVLink"
"""No option: NCCL's and Mooncake's variables."""


@dataclass(frozen=True)
class Value:
    """What a profile gives for one option."""

    option: str
    by_role: Mapping[str, str | None]
    source: str
    since: Fact | None = None
    """What the installed release must have; None: every release that is planned for has it."""


@dataclass(frozen=True)
class Profile:
    """One set of values."""

    name: str
    purpose: str
    values: tuple[Value, ...]


def _all(value: str | None) -> Mapping[str, str | None]:
    return dict.fromkeys(ROLES, value)


ORIGINAL = Profile(
    "original",
    "the deployment that this project continues, as it served",
    (
        Value("--attention-backend", _all("flashinfer"), "the original deployment"),
        Value("--enable-symm-mem", _all(SWITCH), "the original deployment"),
        Value("--mem-fraction-static", _all("0.85"), "the original deployment"),
        Value(
            MNNVL,
            {"prefill": OFF, "decode": SWITCH, "aggregated": OFF},
            "the original deployment: decode workers only",
        ),
    ),
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
            "in none of the GB200 recipes that were read; it takes 4 GB of each GPU",
        ),
        Value(
            "--mem-fraction-static",
            {"prefill": "0.8", "decode": "0.9", "aggregated": "0.85"},
            "the original deployment's last state, by role",
        ),
        Value(
            MNNVL,
            {"prefill": SWITCH, "decode": SWITCH, "aggregated": OFF},
            "every GB200 recipe that was read sets it for both roles",
        ),
    ),
)
_MTP = "SGLang's cookbook for GLM-4.7 (EAGLE, 3 steps, top 1, 4 draft tokens)"
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
    ),
)
PROFILES: Mapping[str, Profile] = {profile.name: profile for profile in (ORIGINAL, BALANCED, LATENCY)}
SETTING = "GLM47_PROFILE"


def values(name: str, role: str) -> dict[str, str | None]:
    """By option, the value that profile `name` gives a worker of `role`."""
    return {value.option: value.by_role[role] for value in PROFILES[name].values}


def misfit(profile: Profile, installed: Mapping[str, str | None]) -> str | None:
    """Why `profile` cannot be used with the `installed` versions, by package; None: it can.

    A release that is not known counts as the pinned one.
    """
    for fact in dict.fromkeys(value.since for value in profile.values if value.since is not None):
        if not fact.holds_here(installed.get(fact.package)):
            version = installed.get(fact.package) or PINNED[fact.package]
            return f"{TITLES[fact.package]} {version} is older than {fact.since}, from which {fact.what}"
    return None
