"""The steps that ranks take by themselves, counted from the lines of a process with several."""

from __future__ import annotations

import random

from entrypoint.supervise.output.steps import Steps

DYNAMO = "\x1b[2m2026-11-23T08:27:29.443419Z\x1b[0m \x1b[32m INFO\x1b[0m model_runner: {}"
TAGGED = "[2026-05-12 08:20:31 TP{rank}] {}"


def fed(*lines: tuple[float, str]) -> Steps:
    steps = Steps(100.0)
    for now, line in lines:
        steps.feed(line, now)
    return steps


def test_one_rank() -> None:
    steps = fed(
        (110.0, DYNAMO.format("Init torch distributed begin.")),
        (111.0, DYNAMO.format("Init torch distributed ends. mem usage=1.21 GB")),
        (112.0, DYNAMO.format("Load weight begin. avail mem=182.10 GB")),
        (150.0, f"Loading safetensors checkpoint shards: 12% |# | 5/41{DYNAMO.format('Load weight end.')}"),
    )
    assert [*steps.all] == ["starting", "weights"]
    assert steps.all["starting"].ends == [110.0]
    assert (steps.all["weights"].began, steps.all["weights"].begun) == (112.0, 1)
    assert steps.all["weights"].ends == [150.0]


def test_ranks_in_any_order_and_a_draft_model() -> None:
    source = random.Random(4)
    lines = []
    for first in (200.0, 300.0):
        begins = [(first + rank / 10, TAGGED.format("Load weight begin", rank=rank)) for rank in range(4)]
        ends = [(first + 50 + rank, TAGGED.format("Load weight end", rank=rank)) for rank in range(4)]
        source.shuffle(ends)
        lines += [*begins, *((first + 50 + n, line) for n, (_, line) in enumerate(ends))]
    steps = fed(*lines)
    assert steps.all["weights"].ends == [250.0, 251.0, 252.0, 253.0] and steps.all["weights"].begun == 4
    assert steps.all["draft"].ends == [350.0, 351.0, 352.0, 353.0]


def test_one_of_four_is_not_through() -> None:
    steps = fed(*((200.0, "Load weight begin"),) * 4, *((230.0, "Load weight end"),) * 3)
    assert steps.all["weights"].begun - len(steps.all["weights"].ends) == 1


def test_ends_without_a_begin_count_for_nothing() -> None:
    assert fed((120.0, "Load weight end")).all["starting"].ends == []
    steps = fed((120.0, "Load weight begin"), *((121.0, "Load weight end"),) * 5)
    assert steps.all["weights"].ends == [121.0]
