"""Expert parallelism with NVFP4: which MoE runner can, on which release, and behind what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from entrypoint.errors import ConfigError
from entrypoint.plan.types import Plan
from tests.plan.deployments import HEAD, NEWER, PINNED, Container, build

CUTEDSL = "--moe-runner-backend flashinfer_cutedsl"
DEEPEP = "--moe-a2a-backend deepep"
SIXTEEN = {**HEAD, "nnodes": 4, "leader_address": "node2", "tp": 16}


def on(sglang: str, role: str, extra: str, **settings: Any) -> Plan:
    """The plan of a rank of TP 16 over four nodes."""
    facts = PINNED if sglang == "0.5.6.post2" else replace(NEWER, engine=replace(NEWER.engine, sglang=sglang))
    return build(Container({**SIXTEEN, "role": role, "extra_args": extra, **settings}, facts=facts))


def refused(sglang: str, role: str, extra: str, **settings: Any) -> str:
    with pytest.raises(ConfigError) as error:
        on(sglang, role, extra, **settings)
    (line,) = error.value.problems
    return line


@pytest.mark.parametrize("sglang", ["0.5.6.post2", "0.5.10", "0.5.14", "0.5.23"])
def test_dp_and_ep_16_behind_deepep(sglang: str) -> None:
    """The rank's own scales are cut out on every release, so nothing stands in the way."""
    plan = on(sglang, "decode", f"{CUTEDSL} {DEEPEP} --deepep-mode low_latency", dp=16)
    argv = plan.process("decode").argv
    assert argv[argv.index("--dp-size") + 1] == "16" and "--enable-dp-attention" in argv
    assert plan.layouts[0].attention_tp == 1
    assert any("EP 16 with flashinfer_cutedsl was read" in text for text in plan.warnings)
    assert not any("padded" in text for text in plan.warnings), "each rank has whole experts"


def test_deepep_sets_ep_to_tp_whatever_is_asked_for() -> None:
    plan = on("0.5.14", "decode", f"{CUTEDSL} {DEEPEP}", ep=4)
    assert any("EP 16 with flashinfer_cutedsl" in text for text in plan.warnings)
    line = refused("0.5.14", "decode", CUTEDSL, ep=4)
    assert line == (
        "cannot use GLM47_EP: 4: flashinfer_cutedsl takes EP 1 or EP equal to TP only: use 1 or 16"
    )


def test_before_0_5_11_the_runner_is_behind_deepep_only() -> None:
    assert refused("0.5.10", "decode", CUTEDSL, ep=16) == (
        "cannot use GLM47_EXTRA_ARGS --moe-runner-backend: flashinfer_cutedsl: sglang before 0.5.11 has it "
        "for EP behind DeepEP only: add --moe-a2a-backend deepep, or use flashinfer_cutlass"
    )
    on("0.5.11", "decode", CUTEDSL, ep=16)


@pytest.mark.parametrize("role", ["prefill", "aggregated"])
def test_prefill_needs_the_low_latency_mode(role: str) -> None:
    line = refused("0.5.14", role, f"{CUTEDSL} {DEEPEP}")
    assert line == (
        "cannot use GLM47_EXTRA_ARGS --moe-a2a-backend: deepep: flashinfer_cutedsl has no kernel for "
        "DeepEP's normal mode, which prefill takes: add --deepep-mode low_latency"
    )
    on("0.5.14", role, f"{CUTEDSL} {DEEPEP} --deepep-mode low_latency")
    on("0.5.17", role, f"{CUTEDSL} {DEEPEP}")
    assert "--deepep-mode: normal" in refused("0.5.17", role, f"{CUTEDSL} {DEEPEP} --deepep-mode normal")


@pytest.mark.parametrize("sglang", ["0.5.6.post2", "0.5.14", "0.5.23"])
@pytest.mark.parametrize("runner", ["triton", "cutlass"])
def test_the_default_kernels_mix_scales_on_every_release(sglang: str, runner: str) -> None:
    assert "mixes global and local expert scales" in refused(
        sglang, "decode", f"--moe-runner-backend {runner}", ep=16
    )
