"""Prefill and decode workers of different TP: what docs/layouts.md says, by tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from entrypoint.plan.engine import kv_layouts
from tests.engine.stacks import Stack
from tests.support.cpu_engine import PINNED, greedy, make_model, prompts, reference

ROLE = "etcd,nats,prefill,decode,frontend"


def wrong_answers(
    directory: Path, release: str, kv_heads: int, prefill: int, decode: int, allow: bool = False
) -> int:
    """How many of 12 answers are not the model's, with four requests at a time."""
    model = make_model(directory / "model", kv_heads)
    asked = prompts((40, 80, 160, 300) * 3)
    right = reference(model, asked, release=release)
    layout = {"GLM47_PREFILL_TP": str(prefill), "GLM47_DECODE_TP": str(decode)}
    layout["GLM47_ALLOW_WRONG_LAYOUT"] = str(allow).lower()
    with Stack(directory / "run", model, ROLE, release=release, gpus=prefill + decode, **layout) as stack:
        answers = greedy(stack.ready().url, asked, at_once=4)
    wrong = sum(answer != true for answer, true in zip(answers, right, strict=True))
    print(f"{release}: prefill TP {prefill}, decode TP {decode}, {kv_heads} KV heads: {wrong} of 12 wrong")
    return wrong


@pytest.mark.engine_more
def test_a_pair_that_is_refused_answers_wrongly(tmp_path: Path, release: str) -> None:
    """Prefill TP above the KV heads, as the original's 16 is with GLM-4.7's 8: a wrong KV cache shows."""
    assert kv_layouts.judge("nixl", release, 2, 1, kv_heads=1).refused
    if release != PINNED:
        pytest.skip("refused as not shown on GPUs: right on the CPU (docs/layouts.md)")
    assert wrong_answers(tmp_path, release, 1, 2, 1, allow=True) > 0


@pytest.mark.engine_more
@pytest.mark.parametrize(("prefill", "decode"), [(1, 2), (2, 1), (2, 2)])
def test_a_pair_that_fits_answers_rightly(prefill: int, decode: int, release: str, tmp_path: Path) -> None:
    """Two KV heads: with TP 2 each rank has one."""
    if kv_layouts.judge("nixl", release, prefill, decode, kv_heads=2).refused:
        pytest.skip(f"sglang {release} hands the KV cache over wrongly there: the runner refuses it")
    assert wrong_answers(tmp_path, release, 2, prefill, decode) == 0
