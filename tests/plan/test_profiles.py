"""Profiles: what they give, what wins over them, and who can use them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from entrypoint.commands.profiles import listed, page
from entrypoint.errors import ConfigError
from entrypoint.node.facts import Facts
from entrypoint.node.machine.facts import Fabric, Gpu, Gpus
from entrypoint.plan.profiles import PROFILES, ROLES
from entrypoint.plan.text import text
from entrypoint.plan.types import Plan
from entrypoint.settings.schema import Settings
from tests.plan.deployments import HEAD, NEWER, PINNED, Container, build

MUCH_NEWER = replace(NEWER, engine=replace(NEWER.engine, sglang="0.5.21", dynamo="1.6.1"))
READ_AHEAD = "--weight-loader-prefetch-checkpoints"
SPECULATION = {
    "--speculative-algorithm": "EAGLE",
    "--speculative-num-steps": "3",
    "--speculative-eagle-topk": "1",
    "--speculative-num-draft-tokens": "4",
    "--speculative-draft-model-quantization": "unquant",
}


def plan(role: str, **settings: Any) -> Plan:
    place = {"role": "single"} if role == "aggregated" else {"role": role, **HEAD}
    return build(Container({**place, **settings}, facts=NEWER))


def given(role: str, **settings: Any) -> dict[str, str]:
    """By option, the next word of the command line."""
    argv = plan(role, **settings).process(role).argv
    return {word: after for word, after in zip(argv, (*argv[1:], ""), strict=True) if word.startswith("--")}


def test_the_page_is_what_the_table_says() -> None:
    assert (Path(__file__).parents[2] / "docs" / "profiles.md").read_text() == page()


def test_every_value_has_a_source_and_every_role() -> None:
    for profile in PROFILES.values():
        for value in profile.values:
            assert value.source and set(value.by_role) == set(ROLES), (profile.name, value.option)
        options = [value.option for value in profile.values]
        assert len(options) == len(set(options))


@pytest.mark.parametrize("role", ROLES)
def test_the_original_is_the_default_and_as_it_was(role: str) -> None:
    args = given(role)
    assert args == given(role, profile="original")
    assert (args["--attention-backend"], args["--mem-fraction-static"]) == ("flashinfer", "0.85")
    assert "--enable-symm-mem" in args and not SPECULATION.keys() & args.keys()


@pytest.mark.parametrize(("role", "memory"), [("prefill", "0.8"), ("decode", "0.9"), ("aggregated", "0.85")])
def test_balanced_leaves_to_sglang_what_it_knows_better(role: str, memory: str) -> None:
    args = given(role, profile="balanced")
    assert READ_AHEAD in args
    assert args["--mem-fraction-static"] == memory
    assert not {"--attention-backend", "--enable-symm-mem", *SPECULATION} & args.keys()


@pytest.mark.parametrize("role", ROLES)
def test_latency_is_balanced_with_speculation(role: str) -> None:
    args, balanced = given(role, profile="latency"), given(role, profile="balanced")
    assert {option: args[option] for option in SPECULATION} == SPECULATION
    assert set(args) - set(balanced) == set(SPECULATION)


@pytest.mark.parametrize(
    ("profile", "role", "on"),
    [
        ("original", "prefill", False),
        ("original", "decode", True),
        ("balanced", "prefill", True),
        ("balanced", "decode", True),
        ("balanced", "aggregated", False),
    ],
)
def test_multi_node_nvlink_by_role(profile: str, role: str, on: bool) -> None:
    for mnnvl, expected in (("auto", on), ("on", True), ("off", False)):
        env = plan(role, profile=profile, mnnvl=mnnvl).process(role).env
        assert ("NCCL_MNNVL_ENABLE" in env) is expected


OWN: Mapping[str, tuple[dict[str, Any], dict[str, str]]] = {
    "a backend": ({"attention_backend": "triton"}, {"--attention-backend": "triton"}),
    "memory": ({"mem_fraction": 0.7}, {"--mem-fraction-static": "0.7"}),
    "an argument": ({"extra_args": "--mem-fraction-static 0.6"}, {"--mem-fraction-static": "0.6"}),
    "fewer steps": (
        {"extra_args": "--speculative-num-steps 1 --speculative-num-draft-tokens 2"},
        {"--speculative-num-steps": "1", "--speculative-num-draft-tokens": "2"},
    ),
}


@pytest.mark.parametrize("what", OWN)
@pytest.mark.parametrize("profile", PROFILES)
def test_what_a_person_sets_wins(profile: str, what: str) -> None:
    settings, words = OWN[what]
    made = plan("decode", profile=profile, **settings)
    process = made.process("decode")
    for option, value in words.items():
        assert process.argv.count(option) == 1
        assert process.argv[process.argv.index(option) + 1] == value
        assert process.settings.get(option) != "GLM47_PROFILE"


@pytest.mark.parametrize("role", ROLES)
def test_throughput_is_balanced_with_larger_steps(role: str) -> None:
    args, balanced = given(role, profile="throughput"), given(role, profile="balanced")
    wanted = {"--stream-interval": "50", "--fp4-gemm-backend": "flashinfer_cutlass"}
    if role == "prefill":
        wanted |= {"--chunked-prefill-size": "32768", "--max-prefill-tokens": "32768"}
    assert {option: args[option] for option in set(args) - set(balanced)} == wanted


@pytest.mark.parametrize(("sglang", "ahead", "fp4"), [
    ("0.5.6.post2", False, False), ("0.5.8", False, True), ("0.5.10.post1", False, True),
    ("0.5.11", True, True),
])  # fmt: skip
def test_what_a_release_does_not_know_is_left_out(sglang: str, ahead: bool, fp4: bool) -> None:
    facts = replace(PINNED, engine=replace(PINNED.engine, sglang=sglang))
    argv = (
        build(Container({"role": "decode", **HEAD, "profile": "throughput"}, facts=facts))
        .process("decode")
        .argv
    )
    assert (READ_AHEAD in argv, "--fp4-gemm-backend" in argv) == (ahead, fp4)


@pytest.mark.parametrize(("version", "native", "value"), [
    ("0.5.9", {}, "1"), ("0.5.10.post1", {}, "1"), ("0.5.11", {}, None), ("0.5.14", {}, None),
    ("0.5.9", {"SGLANG_ENABLE_SPEC_V2": "0"}, None),
])  # fmt: skip
def test_speculation_overlaps_where_it_must_be_asked_to(
    version: str, native: dict[str, str], value: str | None
) -> None:
    facts = replace(PINNED, engine=replace(PINNED.engine, sglang=version))
    settings = {"role": "decode", **HEAD, "profile": "latency"}
    process = build(Container(settings, native=native, facts=facts)).process("decode")
    assert process.env.get("SGLANG_ENABLE_SPEC_V2") == value
    assert not any("SPEC_V2" in word for word in process.argv)


@pytest.mark.parametrize(("nodes", "facts", "role", "wide"), [
    (4, MUCH_NEWER, "decode", True), (4, NEWER, "decode", False), (2, MUCH_NEWER, "decode", False),
    (4, MUCH_NEWER, "prefill", False),
])  # fmt: skip
def test_a_decode_worker_of_sixteen_gpus_shares_no_attention(
    nodes: int, facts: Facts, role: str, wide: bool
) -> None:
    place = {"role": role, **HEAD, "nnodes": nodes, "leader_address": "node6", "profile": "throughput"}
    made = build(Container(place, facts=facts)).process(role)
    words = dict(zip(made.argv, made.argv[1:], strict=False))
    assert words["--tp-size"] == str(4 * nodes)
    assert (words["--dp-size"], words["--ep-size"]) == (("16", "16") if wide else ("1", "1"))
    assert ("--enable-dp-lm-head" in words and "--enable-dp-attention" in words) is wide
    assert (made.settings.get("--dp-size") == "GLM47_PROFILE") is wide
    own = build(Container({**place, "dp": 1, "ep": 1}, facts=facts)).process(role)
    assert own.argv[own.argv.index("--dp-size") + 1] == "1"


def test_switches_can_be_set_and_unset() -> None:
    assert "--enable-symm-mem" in given("decode", profile="balanced", symm_mem=True)
    assert "--enable-symm-mem" not in given("decode", symm_mem=False)
    assert "--attention-backend" not in given("decode", attention_backend="auto")


@pytest.mark.parametrize(("profile", "own_code", "set_to", "trusted"), [
    ("original", False, None, True), ("original", False, False, False), ("balanced", False, None, False),
    ("balanced", True, None, True), ("balanced", True, False, False), ("balanced", False, True, True),
])  # fmt: skip
def test_code_of_the_checkpoint_is_trusted_where_it_has_any(
    profile: str, own_code: bool, set_to: bool | None, trusted: bool
) -> None:
    facts = replace(NEWER, model=replace(NEWER.model, own_code=own_code))
    settings = {"role": "decode", **HEAD, "profile": profile, "trust_remote_code": set_to}
    assert (
        "--trust-remote-code" in build(Container(settings, facts=facts)).process("decode").argv
    ) is trusted


def test_the_plan_shows_what_a_profile_gave() -> None:
    def by_profile(**settings: Any) -> str:
        (line,) = (line for line in text(plan("decode", **settings)).splitlines() if "by profile" in line)
        return line

    assert "--mem-fraction-static" not in by_profile(profile="balanced", mem_fraction=0.7)
    line = by_profile(profile="latency")
    assert "--mem-fraction-static" in line and "--speculative-algorithm" in line


def lines(settings: Settings, here: Gpus, **installed: str) -> str:
    return "\n".join(listed(settings, {"sglang": "0.5.6.post2", "dynamo": "0.8.1", **installed}, here))


def test_the_list_says_what_is_kept_out_and_why() -> None:
    shown = lines(Settings(decode_nodes=2), Gpus(0, unseen="no driver"))
    assert "GPUs of a worker: prefill 4, decode 8, aggregated 4" in shown
    assert "GPUs here: not known (no driver)" in shown
    assert "latency: cannot be used: sglang 0.5.6.post2 is older than 0.5.9" in shown
    assert "not given here: sglang 0.5.6.post2 is older than 0.5.11" in shown
    shown = lines(Settings(decode_nodes=2), Gpus(0), sglang="0.5.21")
    assert "cannot be used" not in shown and "older" not in shown
    assert "it is known for a worker of 16 GPUs, and this one has 8" in shown
    assert "it is known for" not in lines(Settings(decode_nodes=4), Gpus(0), sglang="0.5.21")


def gpus(kind: str, count: int, fabric: bool) -> Gpus:
    one = Gpu(0, kind, fabric=Fabric("completed" if fabric else "not supported", None, "0", 0))
    return Gpus(count, tuple(replace(one, index=n) for n in range(count)))


@pytest.mark.parametrize(("here", "said", "unsaid"), [
    (gpus("NVIDIA GB200", 4, True), ["4 NVIDIA GB200"], ["no profile", "MNNVL=off"]),
    (gpus("NVIDIA H200", 4, False), ["4 NVIDIA H200", "need Blackwell", "MNNVL=off"], ["GPUS_PER_NODE is"]),
    (gpus("NVIDIA H100", 1, False), ["GLM47_GPUS_PER_NODE is: 4, and 1 are here", "need Blackwell"], []),
    (gpus("NVIDIA B200", 8, False), ["8 NVIDIA B200", "MNNVL=off"], ["no profile"]),
    (gpus("NVIDIA Something", 4, True), ["4 NVIDIA Something"], ["no profile"]),
])  # fmt: skip
def test_the_list_says_what_this_machines_gpus_are_for(
    here: Gpus, said: list[str], unsaid: list[str]
) -> None:
    shown = lines(Settings(), here)
    assert all(words in shown for words in said), shown
    assert not any(words in shown for words in unsaid), shown


def test_a_profile_that_the_release_cannot_use_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        build(Container({"role": "decode", **HEAD, "profile": "latency"}, facts=PINNED))
    assert caught.value.problems == (
        "cannot use GLM47_PROFILE: latency: sglang 0.5.6.post2 is older than 0.5.9, from which the draft "
        "layer (MTP) of GLM-4.7-NVFP4 is loaded as BF16: use balanced or original",
    )
    unknown = replace(PINNED, engine=replace(PINNED.engine, sglang=None))
    with pytest.raises(ConfigError, match=r"sglang 0\.5\.6\.post2 is older"):
        build(Container({"role": "decode", **HEAD, "profile": "latency"}, facts=unknown))
