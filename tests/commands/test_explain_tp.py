"""The table of `plan --explain tp`."""

from __future__ import annotations

import pytest

from entrypoint.commands.explain.tp import table, trtllm_width
from entrypoint.node.facts import ModelFacts


def test_pinned_release() -> None:
    text = table(ModelFacts(), sglang="0.5.6.post2", flashinfer="0.5.3")
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line[:1].isdigit()}
    assert rows["8"] == ["2", "192", "192", "0%", "yes,", "patched", "no"]
    assert rows["16"] == ["4", "96", "128", "33%", "yes,", "patched", "no"]
    assert "GLM47_MOE_RUNNER=flashinfer_cutlass" in text


def test_pipelines_of_four_nodes() -> None:
    lines = table(ModelFacts()).splitlines()
    start = lines.index("4 nodes of 4 GPUs as:")
    assert [line.split() for line in lines[start + 2 :]] == [
        ["1", "4", "16", "96", "128", "33%"],
        ["2", "2", "8", "192", "192", "0%"],
        ["4", "1", "4", "384", "384", "0%"],
    ]


def test_newer_release_needs_the_patch_only_where_it_pads() -> None:
    text = table(ModelFacts(), sglang="0.5.12", flashinfer="0.6.11").partition("\n\npatched")[0]
    rows = {line.split()[0]: line.split()[5:] for line in text.splitlines() if line[:1].isdigit()}
    assert rows["4"] == ["yes", "yes"]
    assert rows["8"] == ["yes", "yes,", "at", "256", "(33%)"]
    assert rows["16"] == ["yes,", "patched", "yes,", "at", "128", "(33%)"]


@pytest.mark.parametrize(
    ("width", "sglang", "works_on"),
    [(192, "0.5.7", 192), (192, "0.5.8", 256), (192, "0.5.22", 256), (192, "0.5.23", 192), (192, None, 192),
     (96, "0.5.6.post2", 128), (96, "0.5.12", 128), (384, "0.5.12", 384)],
)  # fmt: skip
def test_width_that_trtllm_works_on(width: int, sglang: str | None, works_on: int) -> None:
    assert trtllm_width(width, sglang) == works_on


def test_other_models_and_nodes() -> None:
    text = table(ModelFacts(moe_intermediate_size=768, experts=8), gpus_per_node=8, nodes=2)
    assert text.startswith("MoE width 768, 8 experts") and "2 nodes of 8 GPUs as:" in text
