"""Options that the plan decides: a person's own are refused by name, and so is what is short for one."""

from __future__ import annotations

from typing import Any

import pytest

from entrypoint.errors import ConfigError
from entrypoint.plan.roles import reserved
from entrypoint.prepare.parser.options import TABLE
from tests.plan.deployments import HEAD, NEWER, Container, build

SETTINGS = {"sglang": "extra_args", "mocker": "extra_args", "frontend": "frontend_extra_args"}
TABLES = {"sglang": reserved.SGLANG, "mocker": reserved.MOCKER, "frontend": reserved.FRONTEND}


def problems(what: str, extra: str, **settings: Any) -> tuple[str, ...]:
    place = {"role": "frontend" if what == "frontend" else "decode", **HEAD, **settings}
    if what == "mocker":
        place["engine"] = "mocker"
    try:
        build(Container({**place, SETTINGS[what]: extra}))
    except ConfigError as error:
        return error.problems
    return ()


@pytest.mark.parametrize(("what", "flag"), [(what, flag) for what, table in TABLES.items() for flag in table])
def test_what_the_plan_decides_is_refused_by_name(what: str, flag: str) -> None:
    (line,) = problems(what, f"{flag} other")
    assert line.startswith(f"cannot use GLM47_{SETTINGS[what].upper()} {flag}: other: ")


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ("--served-model-name other", "GLM47_SERVED_MODEL_NAME"),
        ("--model other", "GLM47_MODEL_PATH"),
        ("--model-path=other", "GLM47_MODEL_PATH"),
        ("--disaggregation-mode null", "ROLE"),
        ("--port 30000", "GLM47_HTTP_PORT"),
        ("--endpoint dyn://a.b.c", "GLM47_NAMESPACE"),
        ("--config recipe.yaml", "give its options here"),
        ("--attention-data-parallel-size 4", "GLM47_DP"),
    ],
)
def test_the_line_names_what_to_set(extra: str, named: str) -> None:
    (line,) = problems("sglang", extra)
    assert named in line


def test_a_pasted_command_line_that_says_the_same_changes_nothing() -> None:
    place = {"role": "decode", **HEAD}
    plan = build(Container(place))
    argv = plan.process("decode").argv
    path = argv[argv.index("--model-path") + 1]
    same = f"--model {path} --served-model-name glm-4.7 --disaggregation-mode decode"
    assert build(Container({**place, "extra_args": same})).process("decode").argv == argv


@pytest.mark.parametrize(
    ("extra", "full"),
    [
        ("--tensor-parallel 8", None),
        ("--tp-s 8", "--tp-size"),
        ("--served-model other", "--served-model-name"),
        ("--disaggregation-m null", "--disaggregation-mode"),
        ("--dist-init node9:1", "--dist-init-addr"),
        ("--nnode 2", "--nnodes"),
        ("--moe-runner flashinfer_trtllm", "--moe-runner-backend"),
        ("--quant fp8", "--quantization"),
        ("--hos 1.2.3.4", "--host"),
        ("--http-p 1", "--http-port"),
    ],
)
def test_short_for_what_the_runner_reads_is_refused(extra: str, full: str | None) -> None:
    what = "frontend" if "http" in extra else "sglang"
    found = problems(what, extra)
    flag = extra.split()[0]
    full = full or "--tensor-parallel-size"
    assert found == (
        f"cannot use GLM47_{SETTINGS[what].upper()}: {flag}: it is short for {full}: write it out",
    )


def test_no_option_of_any_release_is_taken_for_a_short_one() -> None:
    """Those of the table, which every release's own parser has made."""
    refused = []
    names = {"dynamo.sglang": "sglang", "dynamo.frontend": "frontend", "dynamo.mocker": "mocker"}
    for line in TABLE.read_text().splitlines():
        command, _, _, _, *flags = line.split()
        for flag in flags:
            refused += [(flag, found) for found in problems(names[command], flag) if "short for" in found]
    assert refused == []


@pytest.mark.parametrize("flag", reserved.SPLITS_CACHES)
def test_what_splits_kv_caches_otherwise_is_refused_where_they_are_handed_over(flag: str) -> None:
    (line,) = problems("sglang", f"{flag} 2")
    assert line.startswith(f"cannot use GLM47_EXTRA_ARGS: {flag}: ")
    alone = build(Container({"role": "single", "extra_args": f"{flag} 2"}, facts=NEWER))
    assert flag in alone.process("aggregated").argv


def test_the_gpus_of_two_workers_in_a_container_are_not_moved_by_one_setting() -> None:
    place = {"role": "etcd,frontend,prefill,decode", "prefill_workers": 1, "gpus_per_node": 8, "tp": 4}
    with pytest.raises(ConfigError, match="--base-gpu-id"):
        build(Container({**place, "extra_args": "--base-gpu-id 1"}))
    build(Container({**place, "decode_extra_args": "--base-gpu-id 1"}))


@pytest.mark.parametrize("dash", ["\u2013tp 8", "\u2014tp 8", "\u2212\u2212tp 8", "--dp 1 \u2010\u2010tp 8"])
def test_a_typographic_dash_is_no_value(dash: str) -> None:
    (line,) = problems("sglang", dash)
    assert line.startswith("cannot read GLM47_EXTRA_ARGS: ") and line.endswith("write - or --")
