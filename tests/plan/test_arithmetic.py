"""Versions, the split over GPUs, and the MoE runner."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.node.versions import key, older
from entrypoint.plan.engine import moe_runner, parallelism
from entrypoint.plan.engine.parallelism import Split

RELEASES = [
    "0.5.6.dev1",
    "0.5.6rc1",
    "0.5.6",
    "0.5.6.post2",
    "0.5.7",
    "0.5.10",
    "0.6",
    "1.0.0rc2",
    "1.0",
    "1.3.1",
]


def test_releases_come_in_order() -> None:
    keys = [key(release) for release in RELEASES]
    assert None not in keys
    assert keys == sorted(keys, key=lambda k: k or ((), 0, 0, 0))
    assert len(set(keys)) == len(keys)


def test_older() -> None:
    assert older("0.5.6.post2", "0.5.8") is True
    assert older("1.0.0+cu129", "1.0") is False
    assert older(None, "1.0") is None
    assert older("main", "1.0") is None
    assert older("v0.9.1", "1.0") is True


@pytest.mark.parametrize(
    ("tp", "ep", "width", "padded", "waste"),
    [
        (4, 1, 384, 384, 0),
        (8, 1, 192, 192, 0),
        (16, 1, 96, 128, 1 / 3),
        (16, 4, 384, 384, 0),
        (32, 1, 48, 64, 1 / 3),
    ],
)
def test_widths_of_glm_4_7(tp: int, ep: int, width: int, padded: int, waste: float) -> None:
    assert parallelism.width_per_rank(1536, tp, ep) == width
    assert parallelism.padded_width(width) == padded
    assert parallelism.waste(width) == pytest.approx(waste)


@given(st.integers(1, 100_000))
def test_padding_is_the_next_multiple_of_64(width: int) -> None:
    padded = parallelism.padded_width(width)
    assert padded % 64 == 0
    assert 0 <= padded - width < 64


@given(st.integers(1, 64), st.integers(1, 8), st.integers(1, 8))
def test_the_choices_offered_are_themselves_accepted(tp: int, nnodes: int, gpus: int) -> None:
    numbers = {"heads": 96, "kv_heads": 8, "experts": 160, "intermediate": 1536, "nvfp4": True}
    found = parallelism.check(Split(tp, nnodes=nnodes, gpus_per_node=gpus), **numbers)  # type: ignore[arg-type]
    assert len({f.number for f in found}) == len(found)
    for finding in found:
        if finding.remedy.startswith("use one of "):
            for choice in finding.remedy.removeprefix("use one of ").split(", "):
                again = Split(int(choice), nnodes=nnodes, gpus_per_node=gpus)
                assert parallelism.check(again, **numbers) == []  # type: ignore[arg-type]


def test_dp_attention_splits_heads_inside_a_group_only() -> None:
    numbers = {"heads": 96, "kv_heads": 8, "experts": 160, "intermediate": 1536, "nvfp4": True}
    whole = parallelism.check(Split(12, nnodes=3), **numbers)  # type: ignore[arg-type]
    assert [f.why for f in whole] == ["8 KV heads can neither be split nor replicated over 12"]
    assert parallelism.check(Split(12, dp=12, nnodes=3), **numbers) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sglang", "flashinfer", "runner"),
    [
        ("0.5.6.post2", "0.5.3", "flashinfer_cutlass"),
        ("0.5.6.post2", None, "flashinfer_cutlass"),
        ("0.5.7", "0.6.3", "flashinfer_cutlass"),
        ("0.5.8", "0.6.1", "flashinfer_cutlass"),
        ("0.5.8", None, "flashinfer_cutlass"),
        ("0.5.8.post1", None, "flashinfer_cutlass"),
        ("0.5.8", "0.6.2", "flashinfer_trtllm"),
        ("0.5.9", "0.6.3", "flashinfer_trtllm"),
        ("0.5.9", None, "flashinfer_trtllm"),
        ("0.5.23", "0.7.2", "flashinfer_trtllm"),
        ("0.5.9", "0.6.1", "flashinfer_cutlass"),
        (None, None, "flashinfer_trtllm"),
        (None, "0.6.0", "flashinfer_cutlass"),
    ],
)
def test_runner_by_release(sglang: str | None, flashinfer: str | None, runner: str) -> None:
    chosen, reason = moe_runner.choose(sglang, flashinfer)
    assert chosen == runner
    assert (moe_runner.trtllm_fault(sglang, flashinfer) is None) == (runner == "flashinfer_trtllm")
    assert reason


def test_other_quantizations_are_left_to_sglang() -> None:
    assert moe_runner.choose("0.5.6.post2", "0.5.3", quantization="fp8")[0] == "auto"
