"""Thoughts and tool calls are taken out of the text where Dynamo can; a person's own choice always counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.plan.deployments import HEAD, PINNED, Container, build

RELEASES = {"0.8.1": False, "0.9.1": False, "1.0.0": True, "1.3.1": True, "1.6.1": True, None: False}
TOOL, THOUGHT = "--dyn-tool-call-parser", "--dyn-reasoning-parser"


def words(dynamo: str | None, native: dict[str, str] | None = None, **settings: Any) -> dict[str, str]:
    """The parsers' options of an aggregated worker on this release."""
    facts = replace(PINNED, engine=replace(PINNED.engine, dynamo=dynamo))
    container = Container({**HEAD, "role": "aggregated", **settings}, facts=facts, native=native or {})
    argv = build(container).process("aggregated").argv
    flags = (TOOL, THOUGHT, "--tool-call-parser", "--reasoning-parser")
    return {flag: argv[argv.index(flag) + 1] for flag in flags if flag in argv}


@pytest.mark.parametrize(("dynamo", "knows"), RELEASES.items())
def test_glm_s_own_where_dynamo_has_them(dynamo: str | None, knows: bool) -> None:
    assert words(dynamo) == ({TOOL: "glm47", THOUGHT: "glm45"} if knows else {})


@pytest.mark.parametrize("dynamo", RELEASES)
def test_a_setting_counts(dynamo: str | None) -> None:
    named = words(dynamo, tool_call_parser="hermes", reasoning_parser="deepseek_r1")
    assert named == {TOOL: "hermes", THOUGHT: "deepseek_r1"}
    assert words(dynamo, tool_call_parser="none", reasoning_parser="none") == {}


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("--dyn-tool-call-parser hermes", {TOOL: "hermes", THOUGHT: "glm45"}),
        ("--dyn-reasoning-parser=qwen3", {TOOL: "glm47", THOUGHT: "qwen3"}),
        ("--tool-call-parser glm47", {"--tool-call-parser": "glm47", THOUGHT: "glm45"}),
        ("--reasoning-parser glm45", {"--reasoning-parser": "glm45", TOOL: "glm47", THOUGHT: "glm45"}),
    ],
)
def test_an_argument_counts(extra: str, expected: dict[str, str]) -> None:
    """Dynamo refuses SGLang's tool parser beside its own, and takes SGLang's reasoning parser with it."""
    assert words("1.3.1", extra_args=extra) == expected


@pytest.mark.parametrize(
    ("variable", "left"),
    [("DYN_TOOL_CALL_PARSER", {THOUGHT: "glm45"}), ("DYN_REASONING_PARSER", {TOOL: "glm47"})],
)
def test_a_variable_of_dynamo_s_own_counts(variable: str, left: dict[str, str]) -> None:
    assert words("1.3.1", native={variable: "x"}) == left
