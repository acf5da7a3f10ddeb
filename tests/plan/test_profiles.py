"""Profiles: what they give, what wins over them, and who can use them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from entrypoint.commands.profiles import page
from entrypoint.errors import ConfigError
from entrypoint.plan.profiles import PROFILES, ROLES
from entrypoint.plan.text import text
from entrypoint.plan.types import Plan
from tests.plan.deployments import HEAD, NEWER, PINNED, Container, build

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


def test_switches_can_be_set_and_unset() -> None:
    assert "--enable-symm-mem" in given("decode", profile="balanced", symm_mem=True)
    assert "--enable-symm-mem" not in given("decode", symm_mem=False)
    assert "--attention-backend" not in given("decode", attention_backend="auto")


def test_the_plan_shows_what_a_profile_gave() -> None:
    shown = text(plan("decode", profile="balanced", mem_fraction=0.7))
    assert "by profile" not in shown
    shown = text(plan("decode", profile="latency"))
    (line,) = (line for line in shown.splitlines() if "by profile" in line)
    assert "--mem-fraction-static" in line and "--speculative-algorithm" in line


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
