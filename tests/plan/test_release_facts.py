"""The table of what releases do: each fact's ends, read in the wheels on both sides of them."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bench import dynamo_releases
from entrypoint.plan import releases
from entrypoint.plan.releases import Fact, facts, unlooked_at
from tests.plan.deployments import HEAD, PINNED, Container, build
from tests.plan.sources import dynamo_parser, wheel

SGLANG = (
    "0.5.6.post2",
    "0.5.7",
    "0.5.8",
    "0.5.9",
    "0.5.10",
    "0.5.11",
    "0.5.17",
    "0.5.18",
    "0.5.22",
    "0.5.23",
)
DYNAMO = ("0.8.1", "0.9.0", "0.9.1", "1.0.0", "1.0.2", "1.1.0", "1.6.1")
FLASHINFER = ("0.5.3", "0.6.2", "0.6.3", "0.6.7", "0.6.7.post1", "0.6.12")
"""Releases that are read: those on both sides of every end of a fact, and the newest."""


@cache
def text(package: str, version: str, path: str) -> str:
    """The files of a wheel below `path`, one after another."""
    name = {"sglang": "sglang", "dynamo": "ai-dynamo", "flashinfer": "flashinfer-python"}[package]
    with zipfile.ZipFile(wheel(f"{name}=={version}")) as archive:
        names = [n for n in archive.namelist() if n.startswith(path) and "/tests/" not in n]
        return "".join(archive.read(n).decode(errors="replace") for n in names if not n.endswith(".so"))


def sglang(version: str, path: str) -> str:
    return text("sglang", version, f"sglang/srt/{path}")


def flashinfer(version: str) -> str:
    return text("flashinfer", version, "flashinfer/jit/")


def frontend(version: str) -> str:
    return text("dynamo", version, "dynamo/frontend/") + text("dynamo", version, "dynamo/common/config")


def rounds(version: str) -> bool:
    """The branch that rounds flashinfer_trtllm's width takes gated NVFP4 experts too."""
    layer = sglang(version, "layers/moe/fused_moe_triton/layer.py")
    found = re.search(r"if \(([^:]*?intermediate_size_per_partition % 128 != 0[^:]*)\):", layer)
    return found is not None and "is_gated" not in found[1] and "fp4" not in found[1].lower()


def pins(version: str) -> tuple[int, ...]:
    found = re.search(
        r"flashinfer[_-]python(?:\[[^]]*\])?==(\d+)\.(\d+)\.(\d+)", metadata(f"sglang=={version}")
    )
    assert found is not None
    return tuple(map(int, found.groups()))


def announcing(version: str) -> str:
    """Dynamo's code that announces a bootstrap server."""
    files = ("dynamo/sglang/register.py", "dynamo/sglang/_disagg.py")
    return "".join(text("dynamo", version, file) for file in files)


@cache
def parsers(version: str) -> bytes:
    """Dynamo's compiled part, which has the names of its parsers."""
    with zipfile.ZipFile(wheel(f"ai-dynamo-runtime=={version}")) as archive:
        return archive.read("dynamo/_core.abi3.so")


def metadata(requirement: str) -> str:
    with zipfile.ZipFile(wheel(requirement)) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return archive.read(name).decode()


READ: dict[str, Callable[[str], bool]] = {
    "NAMES_ROUTING": lambda v: "routing_method_type" in sglang(v, "models/glm4_moe.py"),
    "PINS_RIGHT_FLASHINFER": lambda v: pins(v) >= (0, 6, 2),
    "TAKES_ROUND_ROBIN": lambda v: "prefill_round_robin_balance: bool" in sglang(v, "server_args.py"),
    "ROUNDS_TRTLLM_WIDTH": rounds,
    "RANKS_OVER_IPV6": lambda v: "class NetworkAddress" in sglang(v, "utils/"),
    "CUTEDSL_NEEDS_DEEPEP": lambda v: (
        "is_flashinfer_cutedsl_v1_path" not in sglang(v, "layers/quantization/modelopt_quant.py")
    ),
    "FORCES_LOW_LATENCY": lambda v: (
        "Forcing --deepep-mode low_latency" in sglang(v, "server_args.py") + sglang(v, "arg_groups/")
    ),
    "ROUTES_IN_FP32": lambda v: "F.linear(hidden_states.to(torch.float" in sglang(v, "models/glm4_moe.py"),
    "READS_AHEAD": lambda v: "weight_loader_prefetch_checkpoints" in sglang(v, "model_loader/loader.py"),
    "SPECULATES_V1": lambda v: "SGLANG_ENABLE_SPEC_V2 = EnvBool(False)" in sglang(v, "environ.py"),
    "PICKS_FP4_GEMM": lambda v: "fp4_gemm_runner_backend" in sglang(v, "server_args.py") + sglang(v, "arg_"),
    "MIGRATES_IN_WORKER": lambda v: "--migration-limit" in text("dynamo", v, "dynamo/sglang/"),
    "FP8_TO_FP4": lambda v: '"modelopt_fp4": ["modelopt", "fp8"]' in sglang(v, "configs/model_config.py"),
    "WRITES_KERNELS": lambda v: '/ f"nv_internal/tensorrt_llm/cutlass_instantiations/' in flashinfer(v),
    "LOCKS_CUBINS": lambda v: "ensure_symlink" in flashinfer(v),
    "TEMPLATE_KWARGS": lambda v: b"chat_template_kwargs" in parsers(v),
    "ANNOUNCES_IPV6": lambda v: "IPv6" in announcing(v),
    "STORE_KV": lambda v: "DYN_STORE_KV" in frontend(v) and "DYN_DISCOVERY_BACKEND" not in frontend(v),
    "KV_EVENTS": lambda v: '"DYN_KV_EVENTS"' in frontend(v) and "router-kv-events" not in frontend(v),
    "GLM_PARSERS": lambda v: all(name in parsers(v) for name in (b"glm45", b"glm47")),
    "NATS_TLS": lambda v: b"NATS_TLS_CA_CERT_PATH" in parsers(v),
    "ALWAYS_DISAGGREGATES": lambda v: "--enforce-disagg" not in frontend(v),
}
"""By fact: whether it holds for a release, by that release's own code."""
FEWER = {
    "GLM_PARSERS": ("0.9.1", "1.0.0"),
    "TEMPLATE_KWARGS": ("0.8.1", "0.9.0", "1.0.0"),
    "NATS_TLS": ("1.4.2", "1.5.0"),
}
"""Releases that are read for a fact where each is 30 MB to download."""
WHEEL = [name for name, fact in facts().items() if fact.evidence.startswith("wheel")]


def test_every_fact_says_how_it_is_known() -> None:
    assert len(facts()) > 10
    for name, fact in facts().items():
        assert fact.package in releases.PINNED and fact.what, name
        assert fact.since or fact.until, name
        assert fact.evidence.partition(":")[0] in ("wheel", "ran", "told"), name
    assert set(WHEEL) == set(READ)


@pytest.mark.parametrize("name", WHEEL)
def test_the_releases_own_code_says_the_same(name: str) -> None:
    fact = facts()[name]
    all_of = {"sglang": SGLANG, "dynamo": DYNAMO, "flashinfer": FLASHINFER}
    versions = FEWER.get(name, all_of[fact.package])
    for end in (fact.since, fact.until):
        assert end is None or end in versions, "read on both sides of it"
    assert [fact.holds(v) for v in versions] == [READ[name](v) for v in versions]


def test_an_unknown_release_is_the_pinned_one_where_something_must_be_decided() -> None:
    fact = Fact("dynamo", "", "0.8.0", "0.9.0", "told")
    assert [fact.holds(v) for v in ("0.7.9", "0.8.1", "0.9.0", None, "main")] == [
        False, True, False, None, None,
    ]  # fmt: skip
    assert fact.holds_here(None) and fact.holds_here("main") and not fact.holds_here("0.9.0")


def test_a_newer_release_is_planned_for_as_the_newest_with_one_warning() -> None:
    newer = replace(PINNED.engine, sglang="9.9", dynamo="9.8.1", flashinfer="0.7.2")
    known_best: dict[str, Any] = dict(releases.NEWEST)
    newest = replace(newer, **known_best)
    role = {**HEAD, "role": "frontend,prefill", "prefill_workers": 1}
    ahead, known = (build(Container(role, facts=replace(PINNED, engine=e))) for e in (newer, newest))
    assert ahead.processes == known.processes
    warned = [w for w in ahead.warnings if w not in known.warnings]
    assert (
        "newer than the newest releases that this runner knows: sglang 9.9 is planned for as 0.5.23, "
        in (warned[0])
    )
    assert sum("newer than the newest" in w for w in ahead.warnings) == 1
    assert not unlooked_at(releases.NEWEST) and not unlooked_at({"sglang": None, "dynamo": "main"})


@pytest.mark.parametrize("version", DYNAMO[:4])
def test_the_frontend_is_given_no_flag_that_its_release_lacks(version: str) -> None:
    engine = replace(PINNED.engine, dynamo=version)
    place = {**HEAD, "role": "frontend", "prefill_workers": 1}
    argv = build(Container(place, facts=replace(PINNED, engine=engine))).process("frontend").argv[3:]
    known = frontend(version)
    assert all(f'"{word}"' in known for word in argv if word.startswith("--"))
    if version.startswith("0"):
        assert dynamo_parser("frontend", "main", version).parse_args([*argv]).enforce_disagg


@pytest.mark.dynamo
@pytest.mark.parametrize("dynamo", dynamo_releases.RELEASES)
def test_the_documents_releases_pin_each_other(dynamo: str) -> None:
    version, flashinfer = dynamo_releases.RELEASES[dynamo]
    asked = re.search(r"sglang(?:\[\w+])?==(\S+); extra == .sglang", metadata(f"ai-dynamo=={dynamo}"))
    assert asked is not None and asked[1] == version
    pinned = re.search(r"flashinfer[_-]python(?:\[\w+])?==(\S+)", metadata(f"sglang=={version}"))
    assert pinned is not None and pinned[1] == flashinfer


def test_the_document_says_what_is_planned() -> None:
    """Else `python bench/dynamo_releases.py` writes it anew."""
    page = dynamo_releases.PAGE.read_text()
    assert dynamo_releases.section(page, "planned") == dynamo_releases.planned()


@pytest.mark.parametrize(
    ("sglang", "dynamo", "words"),
    [
        (
            "0.5.6.post2",
            "0.8.1",
            ["GLM's own tool and reasoning parsers (Dynamo 1.0.0)", "FP32", "read ahead"],
        ),
        ("0.5.14", "1.3.1", ["gives right KV caches between unequal TPs (sglang 0.5.17)"]),
        ("0.5.23", "1.6.1", []),
    ],
)
def test_a_plan_says_what_a_newer_base_gives(sglang: str, dynamo: str, words: list[str]) -> None:
    engine = replace(PINNED.engine, sglang=sglang, dynamo=dynamo)
    plan = build(Container({"role": "single"}, facts=replace(PINNED, engine=engine)))
    found = [line for line in plan.notes if "BASE_IMAGE" in line]
    assert len(found) == bool(words) and all(word in found[0] for word in words)


@pytest.mark.parametrize(
    ("version", "nodes", "off"),
    [
        ("0.5.10", 4, False), ("0.5.11", 4, True), ("0.5.12.post1", 4, True), ("0.5.12.post1", 1, False),
        ("0.5.13", 4, False),
    ],
)  # fmt: skip
def test_the_overlap_schedule_is_off_over_nodes_where_it_hangs(version: str, nodes: int, off: bool) -> None:
    engine = replace(PINNED.engine, sglang=version)
    place = {**HEAD, "role": "prefill", "prefill_nodes": nodes, "leader_address": "node2"}
    plan = build(Container(place, facts=replace(PINNED, engine=engine)))
    assert ("--disable-overlap-schedule" in plan.process("prefill").argv) == off


LITERAL = re.compile(r"[\"']\d+\.\d+(\.\d+)?(\.post\d+)?[\"']")
ELSEWHERE = {
    "releases.py": "the table",
    "kv_layout_table.py": "what was measured, by release",
    "kv_layouts.py": "which issue is about which of those",
    "__init__.py": "our own version",
    "profiles.py": "shares of memory",
    "model.py": "a version field of tokenizer.json",
}


def test_release_numbers_stand_in_the_table_only() -> None:
    root = Path(releases.__file__).parents[0]
    while root.name != "entrypoint":
        root = root.parent
    found = {path.name for path in root.rglob("*.py") if LITERAL.search(path.read_text())}
    assert found <= set(ELSEWHERE), found - set(ELSEWHERE)


@pytest.mark.parametrize(("dynamo", "prefill", "limit"), [
    ("1.0.2", 1, None), ("1.1.0", 1, 10.0), ("1.1.1", 1, 10.0), ("1.1.1", 0, None), ("1.2.0", 1, None),
])  # fmt: skip
def test_a_frontend_that_forgets_prefill_is_started_anew(
    dynamo: str, prefill: int, limit: float | None
) -> None:
    of = replace(PINNED, engine=replace(PINNED.engine, dynamo=dynamo))
    place = {"role": "frontend", **HEAD, "prefill_workers": prefill}
    assert build(Container(place, facts=of)).process("frontend").unlisted_timeout == limit
