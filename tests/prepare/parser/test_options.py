"""The table of which release has which option, and the lines that are made of it."""

from __future__ import annotations

import pytest

from bench import options as command
from entrypoint.plan.types import AliveProbe, Process
from entrypoint.prepare.parser.ask import Complaint
from entrypoint.prepare.parser.complaints import line
from entrypoint.prepare.parser.options import TABLE, Span, spans
from tests.support.available import available

SETTING = "GLM47_EXTRA_ARGS"


@pytest.mark.releases
def test_the_table_is_what_every_releases_parser_says() -> None:
    assert TABLE.read_text().splitlines() == available(command.lines)


def test_known_options_are_where_they_are_known_to_be() -> None:
    """The same as facts that were read by hand."""
    assert spans("dynamo.sglang", "--fp4-gemm-backend") == (Span("sglang", "0.5.8", ""),)
    assert spans("dynamo.sglang", "--weight-loader-prefetch-checkpoints") == (Span("sglang", "0.5.11", ""),)
    (balance,) = spans("dynamo.sglang", "--prefill-round-robin-balance")
    assert (balance.package, balance.first) == ("sglang", "0.5.6") and balance.last
    assert spans("dynamo.frontend", "--enforce-disagg") == (
        Span("dynamo", "0.8.1", "0.9.1"),
        Span("dynamo", "1.1.0", ""),
    )
    assert spans("dynamo.sglang", "--tp-size") == spans("dynamo.sglang", "--no-such-thing") == ()


def said(
    flag: str, sglang: str | None, dynamo: str = "0.8.1", module: str = "dynamo.sglang", near: str = ""
) -> str:
    process = Process("decode", ("python", "-m", module, flag), AliveProbe(), {flag: SETTING})
    complaint = Complaint("decode", "unknown", flag, near=(near,) if near else ())
    return line(complaint, process, {"sglang": sglang, "dynamo": dynamo}, spans(module, flag))


@pytest.mark.parametrize(
    ("flag", "sglang", "words"),
    [
        ("--fp4-gemm-backend", "0.5.6.post2", "(sglang 0.5.8 and newer do): leave it out, or use"),
        ("--prefill-round-robin-balance", "0.5.23", "any more (sglang 0.5."),
        ("--dsa-prefill-cp-mode", "0.5.9", "(sglang 0.5.13 to 0.5.19 do): leave it out, or use"),
        ("--max-runing-requests", "0.5.9", "use the nearest name, --max-running-requests"),
        ("--no-such-thing", None, "sglang of an unknown release with Dynamo 0.8.1 has no such option: leave"),
    ],
)
def test_an_unknown_option_says_which_release_has_it(flag: str, sglang: str | None, words: str) -> None:
    near = "--max-running-requests" if "runing" in flag else ""
    text = said(flag, sglang, near=near)
    assert text.startswith(f"cannot use {SETTING}: {flag}: ") and words in text


def test_an_option_that_went_and_came_back() -> None:
    def frontend(dynamo: str) -> str:
        return said("--enforce-disagg", None, dynamo, "dynamo.frontend")

    assert "(Dynamo 1.1.0 and newer do)" in frontend("1.0.2")


def test_what_no_person_gave_is_called_planned() -> None:
    process = Process("decode", ("python", "-m", "dynamo.sglang", "--x"), AliveProbe())
    text = line(Complaint("decode", "unknown", "--x"), process, {"sglang": "9.9", "dynamo": "9.9"}, ())
    assert text.startswith(
        "cannot use what is planned for decode: --x: sglang 9.9 with Dynamo 9.9 has no such"
    )
