"""The releases' own parsers take what is planned for them, and their complaints are understood."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bench import options
from entrypoint.node.facts import Facts
from entrypoint.plan.profiles import PROFILES, misfit
from entrypoint.plan.types import Plan, Process
from entrypoint.prepare.parser.ask import Answer, Question
from tests.plan.deployments import HEAD, PINNED, SIX, Container, build, node
from tests.support.available import available

Pair = tuple[str, str]

SETS: Mapping[str, Any] = {"gpus_per_node": 8, "dp": 4, "ep": 1, "quantization": "modelopt_fp4"}
NODES: Mapping[str, Any] = {**HEAD, "nnodes": 2, "leader_address": "node6", "node_rank": 1}


def facts(pair: Pair) -> Facts:
    sglang, dynamo = pair
    return replace(PINNED, engine=replace(PINNED.engine, sglang=sglang, dynamo=dynamo))


def plans(pair: Pair) -> Iterable[Plan]:
    """Of every role, alone and over nodes, plain and with much set."""
    of = facts(pair)
    for settings in ({}, {"engine": "mocker"}):
        yield build(Container({"role": "single", **settings}, facts=of))
        yield build(
            Container(
                {"role": "etcd,nats,frontend,prefill,decode", "prefill_workers": 1, **settings}, facts=of
            )
        )
        yield build(Container({"role": "frontend", "router_mode": "kv", **HEAD, **settings}, facts=of))
    for profile in PROFILES.values():
        if misfit(profile, {"sglang": pair[0], "dynamo": pair[1]}) is None:
            for role in ("single", "prefill", "decode"):
                place = {"role": role, "profile": profile.name, **({} if role == "single" else NODES)}
                yield build(Container(place, facts=of))
    yield build(Container({"role": "decode", **NODES, "nnodes": 4, "profile": "throughput"}, facts=of))
    yield build(Container({"role": "decode", **NODES, **SETS}, facts=of))
    yield build(Container({"role": "prefill", **NODES}, facts=of))
    yield build(Container(SIX, node(4), facts=of))


def ask(process: Process, pair: Pair, wanted: Sequence[str] = (), extra: Sequence[str] = ()) -> Answer:
    words = [*process.argv[3:], *extra]
    return available(lambda: options.asked(process.argv[2], words, *pair, wanted))


def test_planned_command_lines_are_taken(pair: Pair) -> None:
    """And mean what the plan says of them."""
    seen = set()
    for plan in plans(pair):
        for process in plan.processes:
            if process.argv[1] != "-m" or process.argv[2:] in seen:
                continue
            seen.add(process.argv[2:])
            answer = ask(process, pair, ["disaggregation_mode", "served_model_name", "nnodes", "http_port"])
            assert (answer.complaints, answer.abbreviations) in [((), {}), ((), {"--tp": "--tp-size"})], (
                process
            )
            values = answer.values or {}
            if process.argv[2] == "dynamo.sglang":
                mode = process.name if process.name in ("prefill", "decode") else "null"
                assert values["disaggregation_mode"] == mode
                assert values["served_model_name"] == plan.served_model_name
                assert values["nnodes"] == plan.nnodes
            if process.argv[2] == "dynamo.frontend":
                assert values["http_port"] == plan.endpoint("http").number
    assert len(seen) > 6


SPOILT = {
    "--max-runing-requests": ("unknown", "--max-running-requests"),
    "--no-such-thing": ("unknown", None),
    "--attention-backend": ("choice", "flashinfer"),
    "--page-size": ("value", None),
    "--sleep-on-idle": ("surplus", None),
    "--disaggregation-t": ("abbreviation", None),
    "--speculative-n": ("ambiguous", "--speculative-num-draft-tokens"),
}
WORDS = (
    "--max-runing-requests 64 --no-such-thing --attention-backend flashinfr --page-size four "
    "--sleep-on-idle 7 --disaggregation-t nixl --speculative-n 3"
)


def test_every_kind_of_fault_is_found_at_once(pair: Pair) -> None:
    process = build(Container({"role": "decode", **HEAD}, facts=facts(pair))).process("decode")
    answer = ask(process, pair, extra=WORDS.split())
    found = {one.flag: one for one in answer.complaints}
    assert {one.kind for one in answer.complaints} <= {kind for kind, _ in SPOILT.values()}
    for flag, (kind, near) in SPOILT.items():
        if kind == "abbreviation":
            assert (answer.abbreviations or {})[flag] == "--disaggregation-transfer-backend"
            continue
        assert found[flag].kind == kind
        assert near is None or near in found[flag].near
    assert len(found) == len(SPOILT) - 1


def test_a_frontends_and_a_mockers_faults_are_found(pair: Pair) -> None:
    for engine, module in (("sglang", "frontend"), ("mocker", "aggregated")):
        process = build(Container({"role": "single", "engine": engine}, facts=facts(pair))).process(module)
        answer = ask(process, pair, extra=["--no-such-thing", "1", "--dump-confg-to", "x"])
        kinds = {one.flag: one.kind for one in answer.complaints}
        assert kinds == {"--no-such-thing": "unknown", "--dump-confg-to": "unknown"}


def test_the_interpreter_need_not_have_anything(tmp_path: Any) -> None:
    """No complaint without a parser: nothing is refused for the runner's own ignorance."""
    argv = (sys.executable, "-m", "dynamo.sglang", "--no-such-thing")
    answer = Question("decode", argv, {"PYTHONPATH": str(tmp_path)}).answer(60.0)
    assert answer.silent is not None and not answer.complaints
