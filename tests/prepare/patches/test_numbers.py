"""The pinned release's weight processing on a CPU: what the kernels get gives the unpadded result."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from bench import releases
from bench.patch_table import line
from entrypoint.plan.engine import moe_runner
from entrypoint.prepare.patches import glm4_moe, modelopt
from entrypoint.prepare.patches.apply import apply_all, check_all, revert_all
from tests.support.available import available


@pytest.fixture(scope="module")
def rows(pinned: releases.Release, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Every width, runner, kind of expert and mode, measured once."""
    sources = releases.copies(pinned, tmp_path_factory.mktemp("release"))
    assert set(sources) == {"off", "pad", "assert"}
    return releases.measure(sources, pinned.flashinfer)


def pick(rows: list[dict[str, Any]], source: str, runner: str, gated: bool) -> list[dict[str, Any]]:
    found = [r for r in rows if (r["source"], r["runner"], r["gated"]) == (source, runner, gated)]
    assert [r["width"] for r in found] == list(releases.WIDTHS)
    return found


@pytest.mark.parametrize("runner", releases.RUNNERS)
def test_padded_gated_experts_are_right_at_every_width(rows: list[dict[str, Any]], runner: str) -> None:
    for row in pick(rows, "pad", runner, gated=True):
        padded = -(-row["width"] // 64) * 64
        assert row.get("relative_error") == 0, row
        assert (row["rows"], row["told"]) == (2 * padded, padded), "the kernel is told the padded width"


@pytest.mark.parametrize("source", ["off", "pad", "assert"])
def test_experts_that_are_not_gated_stay_right(rows: list[dict[str, Any]], source: str) -> None:
    for row in pick(rows, source, "flashinfer_cutlass", gated=False):
        assert row.get("relative_error") == 0 and row["rows"] == row["told"], row


@pytest.mark.parametrize("source", ["off", "assert"])
@pytest.mark.parametrize("runner", releases.RUNNERS)
def test_the_pinned_release_stops_unpatched_and_with_the_original_patch(
    rows: list[dict[str, Any]], source: str, runner: str
) -> None:
    for row in pick(rows, source, runner, gated=True):
        assert row["error"] == "AssertionError: Expected w2_weight_scale.dim(2) to be divisible by 16"


def test_trtllm_takes_gated_experts_only_on_this_release(rows: list[dict[str, Any]]) -> None:
    assert all("error" in row for row in pick(rows, "pad", "flashinfer_trtllm", gated=False))


def test_the_original_patch_is_wrong_where_it_takes_effect(pinned: releases.Release, tmp_path: Path) -> None:
    """With the check on divisibility by 16 out of its way as well, it serves garbage at TP 16."""
    source = releases.copies(pinned, tmp_path)["assert"]
    file = source / "sglang/srt/layers/quantization/modelopt_quant.py"
    text = file.read_text()
    assert text.count("weight_scale.shape[assert_dim] % 16 == 0") == 1
    file.write_text(text.replace("weight_scale.shape[assert_dim] % 16 == 0", "True"))
    found = {
        row["width"]: row
        for row in releases.measure(
            {"assert": source}, pinned.flashinfer, ["flashinfer_cutlass"], gated=[True]
        )
    }
    assert [w for w, row in found.items() if row["relative_error"] == 0] == [384, 192]
    assert found[96]["relative_error"] > 1
    assert (found[96]["rows"], 2 * found[96]["told"]) == (256, 320)


def test_patched_file_stands_alone(pinned: releases.Release, tmp_path: Path) -> None:
    source = releases.copies(pinned, tmp_path)["pad"]
    text = (source / "sglang/srt/layers/quantization/modelopt_quant.py").read_text()
    assert "entrypoint" not in text
    assert [s.state for s in check_all(source, "pad")] == ["applied", "applied"]


def test_why_the_pinned_pair_cannot_route(pinned: releases.Release) -> None:
    """What docs/decisions/moe-runner.md says of it, read in the sources."""
    model = (pinned.sglang / "sglang" / glm4_moe.PATH).read_text()
    assert not glm4_moe.passes_routing(model)
    assert releases.no_expert_score(pinned.flashinfer) == "-1"
    assert releases.unknown_arguments(pinned) == set()
    newer = available(lambda: releases.unpack("flashinfer-python", "0.6.2"))
    assert releases.no_expert_score(newer) == "-inf"
    assert releases.unknown_arguments(dataclasses.replace(pinned, flashinfer=newer)) == {"tile_tokens_dim"}


@pytest.mark.releases
def test_every_release(version: str, tmp_path: Path) -> None:
    of = available(lambda: releases.release(version))
    text, good = line(version)
    assert good, text
    copy = releases.copies(of, tmp_path)["pad"]
    assert apply_all(copy, modelopt="pad", where="inplace", run_dir=tmp_path, environ={}).changed == ()
    revert_all(copy)
    for path in (modelopt.PATH, glm4_moe.PATH):
        assert (copy / "sglang" / path).read_bytes() == (of.sglang / "sglang" / path).read_bytes()
    routes = (
        glm4_moe.passes_routing((of.sglang / "sglang" / glm4_moe.PATH).read_text())
        and releases.no_expert_score(of.flashinfer) == "-inf"
        and not releases.unknown_arguments(of)
    )
    fault = moe_runner.trtllm_fault(version, of.flashinfer_version)
    assert (fault is None) == routes, "the planner knows what the sources say"
