"""Every planned command line is one that the real releases accept."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Mapping
from itertools import zip_longest
from typing import Any

import pytest

from entrypoint.plan.types import Process
from tests.plan.deployments import CONTAINERS, HEAD, Container, build
from tests.plan.sources import dynamo_parser, sglang_parser
from tests.support.available import available

PINNED = [name for name, c in CONTAINERS.items() if c.facts.engine.dynamo in ("0.8.1", None)]
EVERYTHING: Mapping[str, Any] = {
    **HEAD,
    "nnodes": 2,
    "leader_address": "node6",
    "dp": 8,
    "tool_call_parser": "hermes",
    "reasoning_parser": "deepseek_r1",
    "mnnvl": "on",
}


def parse(process: Process) -> argparse.Namespace:
    module, args = process.argv[2], process.argv[3:]
    parsers: dict[str, Callable[[], argparse.ArgumentParser]] = {
        "dynamo.sglang": sglang_parser,
        "dynamo.frontend": lambda: dynamo_parser("frontend", "main"),
        "dynamo.mocker": lambda: dynamo_parser("mocker", "args"),
    }
    return parsers[module]().parse_args(args)


@pytest.mark.parametrize("name", PINNED)
def test_golden_command_lines_are_accepted(name: str) -> None:
    for process in build(CONTAINERS[name]).processes:
        # etcd and NATS, which a module of ours may start, read theirs themselves (tests/stack).
        if process.argv[1:2] == ("-m",) and not process.argv[2].startswith("entrypoint."):
            parse(process)


def test_an_unknown_flag_is_noticed() -> None:
    """The parser read from the sources is a real one: it refuses what the engine would."""
    for extra in ("--no-such-flag", "--attention-backend nonsense", "--tp-size four"):
        parser = sglang_parser()
        with pytest.raises(ValueError, match=r"unrecognized|invalid|required"):
            parser.parse_args(["--model-path", "/model", *extra.split()])


def test_decode_has_every_parameter_of_the_original_deployment() -> None:
    args = parse(build(Container({"role": "decode", **EVERYTHING})).process("decode"))
    assert (
        vars(args).items()
        >= {
            "served_model_name": "glm-4.7",
            "quantization": "modelopt_fp4",
            "kv_cache_dtype": "fp8_e4m3",
            "attention_backend": "flashinfer",
            "moe_runner_backend": "flashinfer_cutlass",
            "trust_remote_code": True,
            "mem_fraction_static": 0.85,
            "enable_symm_mem": True,
            "tensor_parallel_size": 8,
            "data_parallel_size": 8,
            "expert_parallel_size": 1,
            "enable_dp_attention": True,
            "disaggregation_mode": "decode",
            "disaggregation_bootstrap_port": 30001,
            "disaggregation_transfer_backend": "nixl",
            "prefill_round_robin_balance": True,
            "dist_init_addr": "node6:29500",
            "nnodes": 2,
            "node_rank": 0,
            "dist_timeout": 3600,
            "watchdog_timeout": 3600.0,
            "dyn_tool_call_parser": "hermes",
            "dyn_reasoning_parser": "deepseek_r1",
        }.items()
    )


def test_prefill_leaves_dp_and_balance_to_decode() -> None:
    args = parse(build(Container({"role": "prefill", **EVERYTHING})).process("prefill"))
    assert args.disaggregation_mode == "prefill"
    assert args.data_parallel_size == 1
    assert not args.enable_dp_attention
    assert not args.prefill_round_robin_balance


def test_the_engine_reads_extra_arguments_as_the_plan_does() -> None:
    extra = "--tp 2 --mem-fraction-static=0.7 --max-running-requests 64 --no-enable-symm-mem"
    plan = build(Container({"role": "decode", **HEAD, "extra_args": extra}))
    args = parse(plan.process("decode"))
    assert (args.tensor_parallel_size, args.mem_fraction_static, args.max_running_requests) == (2, 0.7, 64)
    assert not args.enable_symm_mem
    argv = plan.process("decode").argv
    assert sum("mem-fraction" in word for word in argv) == 1


LATER = {"--attn-dp-size", "--dcp-size", "--attn-cp-size"}
"""Options of newer releases."""


def test_every_alias_means_the_same_to_the_newest_sglang() -> None:
    from bench.options import asked
    from entrypoint.plan.arguments import ALIASES

    names = sorted({flag.removeprefix("--").replace("-", "_") for flag in ALIASES.values()})

    def given(flags: Collection[str]) -> Mapping[str, Any]:
        """One command line for many options: loading the parser takes seconds."""
        model = [] if {"--model", "--model-path"} & set(flags) else ["--model-path", "/model"]
        words = [*model, *(word for flag in flags for word in (flag, "2"))]
        return available(lambda: asked("dynamo.sglang", words, "0.5.23", "1.6.1", names)).values or {}

    canonical = given(set(ALIASES.values()))
    assert set(map(str, canonical.values())) == {"2"}
    by_option: dict[str, list[str]] = {}
    for alias, option in ALIASES.items():
        by_option.setdefault(option, []).append(alias)
    # The first alias of every option, then the second ones, and the option itself where there is none left.
    for others in zip_longest(*by_option.values()):
        flags = [alias or option for alias, option in zip(others, by_option, strict=True)]
        assert given(flags) == canonical, flags


@pytest.mark.parametrize("version", ["0.5.6.post2", "0.5.9"])
def test_every_alias_means_the_same_to_sglang(version: str) -> None:
    from entrypoint.plan.arguments import ALIASES

    parser = sglang_parser(version)
    for alias, canonical in ALIASES.items():
        if canonical in LATER:
            continue
        value = "n:1" if canonical == "--dist-init-addr" else "2"
        model: list[str] = [] if canonical == "--model-path" else ["--model-path", "/model"]
        given = [vars(parser.parse_args([*model, flag, value])) for flag in (alias, canonical)]
        assert given[0] == given[1]
        assert any(str(v) == value for v in given[0].values())


def test_disaggregated_mocker_and_frontend() -> None:
    mock: Mapping[str, Any] = {**HEAD, "engine": "mocker"}
    prefill = parse(build(Container({"role": "prefill", **mock})).process("prefill"))
    decode = parse(build(Container({"role": "decode", **mock})).process("decode"))
    frontend = parse(build(Container({"role": "frontend", **mock, "prefill_workers": 1})).process("frontend"))
    assert (prefill.is_prefill_worker, prefill.bootstrap_ports) == (True, "30001")
    assert (decode.is_decode_worker, decode.bootstrap_ports) == (True, None)
    assert frontend.enforce_disagg


def test_no_quantization_leaves_the_option_out() -> None:
    """An unquantized model is one that the real parser takes without the option, never with an empty one."""
    plan = build(Container({"role": "single", "quantization": "none", "moe_runner": "auto"}))
    process = plan.process("aggregated")
    assert "--quantization" not in process.argv
    assert parse(process).quantization is None
    assert any("MoE runner auto" in note for note in plan.notes)
