from __future__ import annotations

import pytest

from entrypoint.plan.arguments import ArgumentsError, Option, parse, planned

PLANNED = planned(("--tp-size", "4"), "--trust-remote-code", ("--host", "a"), "--enable-symm-mem")


def merged(text: str) -> str:
    return " ".join(PLANNED.override(parse(text, "GLM47_EXTRA_ARGS")).argv())


@pytest.mark.parametrize(
    ("extra", "result"),
    [
        ("", "--tp-size 4 --trust-remote-code --host a --enable-symm-mem"),
        ("--tp-size 8", "--trust-remote-code --host a --enable-symm-mem --tp-size 8"),
        ("--tp 8", "--trust-remote-code --host a --enable-symm-mem --tp 8"),
        (
            "--tensor-parallel-size=8",
            "--trust-remote-code --host a --enable-symm-mem --tensor-parallel-size 8",
        ),
        ("--trust-remote-code", "--tp-size 4 --host a --enable-symm-mem --trust-remote-code"),
        ("--no-trust-remote-code", "--tp-size 4 --host a --enable-symm-mem"),
        (
            "--new 1 2 -1 .5 --flag",
            "--tp-size 4 --trust-remote-code --host a --enable-symm-mem --new 1 2 -1 .5 --flag",
        ),
        (
            "--no-other",
            "--tp-size 4 --trust-remote-code --host a --enable-symm-mem --no-other",
        ),
        ("--host=", "--tp-size 4 --trust-remote-code --enable-symm-mem --host "),
    ],
)
def test_extra_arguments_override_planned_ones(extra: str, result: str) -> None:
    assert merged(extra) == result


def test_quotes_keep_a_value_together() -> None:
    assert parse("""--json '{"a": [1, 2]}' --x="y z" """, "S") == (
        Option("--json", ('{"a": [1, 2]}',), "S"),
        Option("--x", ("y z",), "S"),
    )


def test_the_later_of_two_extra_arguments_is_in_force() -> None:
    options = PLANNED.override(parse("--tp 2 --tp 8", "S"))
    assert options.value("--tp-size") == "8"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('--a "b', 'cannot read S: --a "b: a quote is not closed: close it or escape it with \\'),
        (
            "a --b",
            "cannot read S: a: it belongs to no option: begin with one (--name value), and "
            "leave the command itself out",
        ),
        ("--no-host", "cannot use S: --no-host: --host needs a value: give one"),
    ],
)
def test_unreadable_arguments_are_one_line(text: str, line: str) -> None:
    with pytest.raises(ArgumentsError) as caught:
        PLANNED.override(parse(text, "S"))
    assert str(caught.value) == line
