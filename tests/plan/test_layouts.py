"""Prefill and decode workers that do not fit together are refused wherever a container knows of both."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner

from entrypoint.commands.cli import cli
from entrypoint.errors import ConfigError, ExitCode
from entrypoint.node.facts import Facts
from entrypoint.plan.engine.kv_layout_table import CODE
from tests.plan.deployments import HEAD, IMAGE, MODEL, NEWER, PINNED, SIX, Container, build, node

PREFILL: dict[str, Any] = {"role": "prefill", **HEAD}
DECODE: dict[str, Any] = {"role": "decode", **HEAD}
FRONTEND: dict[str, Any] = {"role": "frontend", **HEAD, "prefill_workers": 1}
BOTH: dict[str, Any] = {"role": "etcd,frontend,prefill,decode", "prefill_workers": 1}
ORIGINAL = {**SIX, "prefill_workers": 1, "prefill_nodes": 4, "nginx": False}
CANNOT = "cannot pair prefill and decode workers: attention-TP "
ONE_HEAD = replace(PINNED, model=replace(MODEL, kv_heads=1))
UNKNOWN = Facts(MODEL, replace(IMAGE, sglang="0.5.99"))
KNOWN_CODE = replace(
    UNKNOWN,
    engine=replace(
        UNKNOWN.engine, transfer_code={"nixl": next(d for d, v in CODE["nixl"].items() if v == "0.5.14")}
    ),
)

REFUSED: dict[str, tuple[Container, str]] = {
    "the original's, on its head": (Container(ORIGINAL, node(0)), "16 and 8 (GLM47_PREFILL_NODES, "),
    "the original's, on a follower": (Container(ORIGINAL, node(3)), "16 and 8"),
    "the original's, on a decode node": (Container(ORIGINAL, node(5)), "16 and 8"),
    "the original's, with TP by settings": (
        Container({**ORIGINAL, "prefill_tp": 16, "decode_tp": 8}, node(0)),
        "16 and 8 (GLM47_PREFILL_TP, GLM47_DECODE_TP)",
    ),
    "both in one container": (
        Container({**BOTH, "prefill_tp": 2, "decode_tp": 1}),
        "2 and 1 (GLM47_PREFILL_TP, GLM47_DECODE_TP)",
    ),
    "prefill that is told decode's TP": (
        Container({**PREFILL, "decode_tp": 2}),
        "4 and 2 (GLM47_PREFILL_NODES, GLM47_DECODE_TP)",
    ),
    "decode that is told prefill's nodes": (
        Container({**DECODE, "prefill_nodes": 2}),
        "8 and 4 (GLM47_PREFILL_NODES, GLM47_DECODE_NODES)",
    ),
    "a frontend that is told both": (Container({**FRONTEND, "prefill_tp": 8, "decode_tp": 4}), "8 and 4"),
    "attention-TP of DP attention": (
        Container({**DECODE, "prefill_tp": 8, "decode_nodes": 2, "leader_address": "node2", "dp": 8}),
        "8 and 1",
    ),
    "an extra argument": (Container({**BOTH, "tp": 2, "decode_extra_args": "--tp-size 1"}), "2 and 1"),
    "one KV head": (Container({**BOTH, "prefill_tp": 1, "decode_tp": 2}, facts=ONE_HEAD), "1 and 2"),
    "a newer release": (
        Container({**FRONTEND, "prefill_tp": 16, "decode_tp": 8}, facts=NEWER),
        "16 and 8 (GLM47_PREFILL_TP, GLM47_DECODE_TP), sglang 0.5.14, nixl, 8 KV heads: every byte is",
    ),
    "a release that nobody has measured": (
        Container({**FRONTEND, "prefill_tp": 8, "decode_tp": 4}, facts=UNKNOWN),
        "sglang 0.5.99 with nixl has not been measured",
    ),
    "a backend that nobody has measured": (
        Container({**FRONTEND, "prefill_tp": 8, "decode_tp": 4, "transfer_backend": "mori"}),
        "the transfer backend mori has not been measured",
    ),
    "backends that differ": (
        Container({**BOTH, "decode_extra_args": "--disaggregation-transfer-backend mooncake"}),
        "their transfer backends differ: nixl and mooncake",
    ),
    "KV cache dtypes that differ": (
        Container({**BOTH, "decode_extra_args": "--kv-cache-dtype auto"}),
        "their KV cache dtypes differ: fp8_e4m3 and auto",
    ),
    "page sizes that differ": (
        Container({**BOTH, "prefill_extra_args": "--page-size 64"}),
        "their page sizes differ: 64 and unset",
    ),
    "pipeline parallelism": (
        Container({**BOTH, "tp": 1, "prefill_extra_args": "--pp-size 2"}),
        "pipeline parallelism has not been measured",
    ),
}
FITS: dict[str, Container] = {
    "the default of disagg.sbatch": Container({**SIX, "nginx": False}, node(0)),
    "both in one container": Container(BOTH),
    "decode above prefill": Container({**FRONTEND, "prefill_tp": 4, "decode_tp": 8}),
    "on mooncake, to one rank": Container(
        {**FRONTEND, "prefill_tp": 4, "decode_tp": 1, "transfer_backend": "mooncake"}
    ),
    "equal by DP attention": Container({**FRONTEND, "prefill_tp": 4, "decode_tp": 8, "dp": 2}),
    "prefill above decode on a newer release": Container(
        {**FRONTEND, "prefill_tp": 8, "decode_tp": 4}, facts=NEWER
    ),
    "the same code under another number": Container(
        {**FRONTEND, "prefill_tp": 8, "decode_tp": 4}, facts=KNOWN_CODE
    ),
    "nothing known of decode": Container(PREFILL),
    "aggregated workers": Container({"decode_nodes": 2}, node(1)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    container, reason = REFUSED[name]
    with pytest.raises(ConfigError) as error:
        build(container)
    assert error.value.exit_code == ExitCode.CONFIG
    line = next(line for line in error.value.problems if line.startswith(CANNOT))
    assert reason in line
    assert line.endswith("GLM47_ALLOW_WRONG_LAYOUT=true starts them all the same)")
    assert len(error.value.problems) == 1, error.value.problems


@pytest.mark.parametrize("name", REFUSED)
def test_allowed_when_asked_for(name: str) -> None:
    container, reason = REFUSED[name]
    plan = build(replace(container, settings={**container.settings, "allow_wrong_layout": True}))
    assert any(w.startswith("GLM47_ALLOW_WRONG_LAYOUT: ") and reason in w for w in plan.warnings)


@pytest.mark.parametrize("name", FITS)
def test_fits(name: str) -> None:
    assert not [w for w in build(FITS[name]).warnings if "attention-TP" in w]


def test_the_remedy_keeps_the_gpus() -> None:
    with pytest.raises(ConfigError) as error:
        build(Container(ORIGINAL, node(0)))
    assert "give both attention-TP 8: 2 prefill workers in place of each one use the same GPUs" in str(
        error.value
    )


def test_equal_tps_on_a_release_that_nobody_has_measured_are_only_warned_of() -> None:
    """Whole pages are copied: nothing can land in a wrong place."""
    plan = build(Container(BOTH, facts=UNKNOWN))
    assert any("sglang 0.5.99 with nixl has not been measured; nothing is cut" in w for w in plan.warnings)


def test_equal_tps_are_refused_where_they_are_known_to_hang() -> None:
    hangs = replace(PINNED, engine=replace(IMAGE, sglang="0.5.12", flashinfer="0.6.11"))
    with pytest.raises(ConfigError, match=r"requests hang \(sglang 25698\): use another base image"):
        build(Container(BOTH, facts=hangs))
    build(Container({**BOTH, "transfer_backend": "mooncake"}, facts=hangs))


def test_a_rehearsal_with_the_mocker_is_warned() -> None:
    plan = build(Container({**ORIGINAL, "engine": "mocker"}, node(0)))
    assert plan.layouts == ()
    assert any(
        w.startswith("SGLang would not start prefill and decode workers of attention-TP 16 and 8")
        for w in plan.warnings
    )


def test_the_plan_carries_the_layout() -> None:
    plan = build(Container({**DECODE, "decode_nodes": 2, "leader_address": "node2", "dp": 2}))
    (layout,) = plan.layouts
    assert (layout.role, layout.attention_tp, layout.kv_heads) == ("decode", 4, 8)
    assert (layout.transfer_backend, layout.kv_cache_dtype, layout.sglang) == (
        "nixl",
        "fp8_e4m3",
        "0.5.6.post2",
    )
    assert build(Container(FRONTEND)).layouts == ()


def run(*words: str, **env: str) -> Any:
    return CliRunner().invoke(cli, [*words], env=env, catch_exceptions=False)


def test_topology_refuses_and_allows() -> None:
    words = ("topology", "--nodes=6", "--prefill-workers=1", "--prefill-nodes=4", "--decode-nodes=2")
    found = run(*words)
    assert found.exit_code == 78
    assert CANNOT + "16 and 8" in found.output
    assert run(*words, GLM47_ALLOW_WRONG_LAYOUT="true").exit_code == 0
    assert run(*words, GLM47_ENGINE="mocker").exit_code == 0
    assert (
        run("topology", "--nodes=6", "--prefill-workers=2", "--prefill-nodes=2", "--decode-nodes=2").exit_code
        == 0
    )


def test_explain_layout_shows_the_table_for_the_node_count() -> None:
    found = run("plan", "--explain", "layout", "--nodes=6", GLM47_PYTHON="/nonexistent")
    assert found.exit_code == 0
    lines = found.output.splitlines()
    assert lines[0].startswith("sglang 0.5.6.post2, nixl, 8 KV heads")
    # 2 prefill workers of 2 nodes and 1 decode worker of 2 nodes; the original's layout.
    assert "2        2           8   1       2           8   0%       right" in lines
    original = next(
        line for line in lines if line.startswith("1        4           16  1       2           8   33%")
    )
    mark = original.rpartition("  ")[2]
    assert f"{mark}: KV heads land in wrong places: wrong answers (sglang 19086)" in lines
    one = run("plan", "--explain", "layout", "--nodes=1", GLM47_PYTHON="/nonexistent")
    assert one.output.endswith(
        "(none: two roles need two nodes at least, and a worker a TP of the first table)\n"
    )


@pytest.mark.parametrize(
    ("shared", "lines"),
    [
        ({"PREFILL": "2"}, ["2        1/2         2   1       1           4   0%       right"]),
        ({"DECODE": "2"}, ["1        1           4   2       1/2         2   0%       wrong 2"]),
        (
            {"PREFILL": "4", "DECODE": "2"},
            ["4        1/4         1   2       1/2         2   0%       right"],
        ),
        (
            {"PREFILL": "3"},
            ["(none: two roles need two nodes at least, and a worker a TP of the first table)"],
        ),
    ],
)
def test_explain_layout_knows_workers_that_share_a_node(shared: dict[str, str], lines: list[str]) -> None:
    given = {f"GLM47_{role}_WORKERS_PER_NODE": number for role, number in shared.items()}
    found = run("plan", "--explain", "layout", "--nodes=2", GLM47_PYTHON="/nonexistent", **given)
    assert found.exit_code == 0
    assert found.output.partition("2 nodes of 4 GPUs as:\n")[2].splitlines()[-len(lines) :] == lines
