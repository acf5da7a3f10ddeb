"""A rank is resolved once: what its command line, its checks and its ports say is one and the same."""

from __future__ import annotations

from typing import Any

import pytest

from entrypoint.node import placement
from entrypoint.plan.context import Context
from entrypoint.plan.deployment import decide
from entrypoint.plan.diagnostics import Level, note, problem, texts, unmet, warning
from entrypoint.plan.roles.rank import Rank, resolve_ranks
from entrypoint.settings.schema import Settings
from tests.plan.deployments import HEAD, PINNED, Container, build


def ranks(given: dict[str, Any], native: dict[str, str] | None = None) -> tuple[Context, tuple[Rank, ...]]:
    s = Settings(**{("ROLE" if k == "role" else k): v for k, v in {**HEAD, **given}.items()})
    place = placement.from_environ({}, s, lambda peer, interface: "10.0.0.7")
    ctx = decide(s, place, PINNED, native or {})
    return ctx, resolve_ranks(ctx)


FLAGS = {
    "--tp 8": ("tp", 8), "--tensor-parallel-size=8": ("tp", 8), "--dp-size 2": ("dp", 2), "--ep 2": ("ep", 2),
    "--pipeline-parallel-size 2": ("pp", 2), "--nnodes 2": ("nnodes", 2),
}  # fmt: skip


@pytest.mark.parametrize("text", FLAGS)
def test_the_split_is_that_of_the_final_command_line(text: str) -> None:
    number, value = FLAGS[text]
    _, (rank,) = ranks({"role": "decode", "decode_extra_args": text})
    assert getattr(rank.split, number) == value
    assert rank.settings.get(number, "GLM47_DECODE_EXTRA_ARGS").startswith("GLM47_DECODE_EXTRA_ARGS")
    for flag, planned in (
        ("--tp-size", rank.split.tp),
        ("--dp-size", rank.split.dp),
        ("--ep-size", rank.split.ep),
    ):
        assert rank.options.value(flag) == str(planned)


@pytest.mark.parametrize(
    "flag", ["--tp", "--dp-size", "--ep", "--pp-size", "--nnodes", "--node-rank", "--page-size"]
)
def test_what_is_no_number_is_said_once_with_what_gave_it(flag: str) -> None:
    _, (rank,) = ranks({"role": "decode", "extra_args": f"{flag} many"})
    assert texts(rank.diagnostics, Level.PROBLEM) == (
        f"cannot use GLM47_EXTRA_ARGS {flag}: many: give a whole number",
    )
    assert len(rank.diagnostics) == 1


def test_workers_of_one_container_share_its_gpus_and_have_ports_of_their_own() -> None:
    given = {"role": "etcd,frontend,prefill,decode", "prefill_workers": 1, "gpus_per_node": 8}
    _, (prefill, decode) = ranks(given)
    assert prefill.options.get("--base-gpu-id") is None
    assert decode.options.value("--base-gpu-id") == str(prefill.split.gpus) == "4"
    assert (prefill.system.number, decode.system.number) == (8081, 8082)


def test_planning_writes_into_nothing_that_it_was_given() -> None:
    ctx, found = ranks({"role": "decode", "extra_args": "--tp x"})
    assert resolve_ranks(ctx) == found and resolve_ranks(ctx) == found
    container = Container({"role": "decode", **HEAD, "ep": 2, "dp": 2, "tp": 2})
    assert build(container) == build(container)


def test_lines_of_one_level_are_said_once_in_their_order() -> None:
    found = [problem("b"), warning("w"), problem("a"), problem("b"), note("n"), unmet("u")]
    assert [texts(found, level) for level in Level] == [("b", "a"), ("u",), ("w",), ("n",)]
