"""What is said of a pair of attention-TPs."""

from __future__ import annotations

import pytest

from entrypoint.node.engine import transfer_code
from entrypoint.plan.engine import kv_layouts
from entrypoint.plan.engine.kv_layout_table import CODE, SPANS
from entrypoint.plan.engine.kv_layouts import judge
from entrypoint.plan.releases import PINNED


@pytest.mark.parametrize(
    ("prefill", "decode", "heads", "kind"),
    [
        (8, 8, 8, "equal"),
        (16, 16, 8, "equal"),
        (8, 1, 8, "prefill-above-one"),
        (8, 4, 8, "prefill-above"),
        (16, 8, 8, "prefill-above-heads"),
        (2, 1, 1, "prefill-above-heads"),
        (4, 8, 8, "decode-above"),
        (4, 16, 8, "decode-above-heads"),
        (8, 16, 8, "decode-above-heads-from-one"),
        (1, 2, 1, "decode-above-heads-from-one"),
        (16, 32, 8, "both-above-heads"),
        (24, 16, 8, "uneven"),
        (16, 24, 8, "uneven"),
    ],
)
def test_relations(prefill: int, decode: int, heads: int, kind: str) -> None:
    assert kv_layouts.relation(prefill, decode, heads) == kind


@pytest.mark.parametrize(
    ("backend", "sglang", "pair", "why"),
    [
        ("nixl", "0.5.6.post2", (8, 8), ""),
        ("nixl", "0.5.6.post2", (16, 16), ""),
        ("nixl", "0.5.6.post2", (16, 8), "KV heads land in wrong places: wrong answers (sglang 19086)"),
        ("nixl", "0.5.6.post2", (8, 4), "KV heads land in wrong places"),
        ("nixl", "0.5.6.post2", (4, 1), "decode goes on before every prefill rank has sent"),
        ("nixl", "0.5.6.post2", (8, 16), "prefill fails on the first request (sglang 14419)"),
        (
            "nixl",
            "0.5.9",
            (4, 1),
            "decode never takes the transfer for complete: requests hang (sglang 22145)",
        ),
        ("nixl", "0.5.12", (8, 8), "requests hang (sglang 25698)"),
        ("mooncake", "0.5.12", (8, 8), ""),
        ("nixl", "0.5.14", (8, 4), ""),
        ("nixl", "0.5.14", (4, 16), "prefill fails on the first request (sglang 31295, 31968)"),
        ("nixl", "0.5.23", (4, 16), ""),
        ("mooncake", "0.5.6.post2", (8, 4), "KV heads land in wrong places: wrong answers (sglang 19086)"),
        ("mooncake", "0.5.14", (4, 16), "KV heads land in wrong places: wrong answers (sglang 30997)"),
        ("mooncake", "0.5.23", (24, 16), "KV heads land in wrong places: wrong answers"),
    ],
)
def test_verdicts(backend: str, sglang: str, pair: tuple[int, int], why: str) -> None:
    verdict = judge(backend, sglang, *pair, kv_heads=8)
    assert verdict.word == ("wrong" if why else "right")
    assert why in verdict.why


@pytest.mark.parametrize("release", ["0.5.14", "0.5.23"])
@pytest.mark.parametrize("backend", ["nixl", "mooncake"])
def test_bytes_are_not_enough_for_the_original_layout(backend: str, release: str) -> None:
    assert kv_layouts.results(backend, release)["prefill-above-heads"] == "right"
    verdict = judge(backend, release, 16, 8, kv_heads=8)
    assert (verdict.word, verdict.refused) == ("unknown", True)
    assert "no answers from GPUs have shown it right" in verdict.why


@pytest.mark.parametrize("release", ["0.5.5", "0.5.24", "1.0", "unheard of"])
def test_what_has_not_been_measured_is_unknown(release: str) -> None:
    verdict = judge("nixl", release, 8, 4, kv_heads=8)
    assert verdict.word == "unknown"
    assert verdict.why == f"sglang {release} with nixl has not been measured"
    assert verdict.refused
    assert judge("mori", "0.5.23", 8, 4, kv_heads=8).word == "unknown"
    # Nothing is cut where both have the same TP.
    equal = judge("nixl", release, 8, 8, kv_heads=8)
    assert (equal.word, equal.why, equal.refused) == ("untried", verdict.why, False)


def test_a_release_with_code_that_is_known_counts_as_the_one_that_has_it() -> None:
    digest = next(d for d, version in CODE["nixl"].items() if version == "0.5.14")
    assert judge("nixl", "0.5.24", 8, 4, 8, digest).word == "right"
    assert judge("nixl", "0.5.24", 4, 16, 8, digest).word == "wrong"
    assert judge("nixl", "0.5.24", 8, 4, 8, "0" * 16).word == "unknown"


def test_the_spans_of_the_table_leave_no_gap() -> None:
    for spans in SPANS.values():
        assert spans[0][0] == PINNED["sglang"]
        assert {last for _, last, _ in spans[-1:]} == {"0.5.23"}
        assert all(set(results) == set(spans[0][2]) for _, _, results in spans)


def test_digests_are_of_the_code_that_is_there(tmp_path) -> None:  # type: ignore[no-untyped-def]
    place = tmp_path / "srt" / "disaggregation"
    for name in ("nixl/conn.py", "common/conn.py", "common/utils.py"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("x = 1\n")
    first = transfer_code(str(tmp_path))
    assert set(first) == {"nixl"}
    (place / "common/utils.py").write_text("x = 2\n")
    assert transfer_code(str(tmp_path))["nixl"] != first["nixl"]
    assert transfer_code(None) == transfer_code(str(tmp_path / "elsewhere")) == {}
