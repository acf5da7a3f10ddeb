"""The table of layouts is what the releases' own code does."""

from __future__ import annotations

import re

import pytest

from bench import kv_layouts as command
from bench import releases
from entrypoint.node.engine import transfer_code
from entrypoint.plan.engine import kv_layouts
from entrypoint.plan.engine.kv_layout_table import CODE, SPANS
from tests.support.available import available

NEWEST = SPANS["nixl"][-1][1]
BETWEEN = "0.5.14"


def measured(version: str, kv_heads: tuple[int, ...]) -> command.Results:
    """What the release does, which must be one thing for all pairs of a relation."""
    rows = available(lambda: command.measure(version, kv_heads))
    found, odd = command.summary(rows)
    assert odd == []
    return found


@pytest.mark.parametrize("version", [releases.PINNED[0], BETWEEN, NEWEST])
def test_the_table_is_what_the_release_does(version: str) -> None:
    found = measured(version, (8, 1))
    for backend in command.BACKENDS:
        known = kv_layouts.results(backend, version)
        assert found[backend] == {kind: known[kind] for kind in found[backend]}, backend
        assert set(found[backend]) == set(command.RELATIONS)


@pytest.mark.parametrize("version", [releases.PINNED[0], BETWEEN, NEWEST])
def test_the_code_is_known_by_its_digest(version: str) -> None:
    code = transfer_code(str(available(lambda: releases.unpack("sglang", version)) / "sglang"))
    assert set(code) == set(command.BACKENDS)
    for backend, digest in code.items():
        # An unknown release with that code is judged as this one.
        assert kv_layouts.measured_as(backend, "99.0", digest) == CODE[backend][digest]
        known = kv_layouts.results(backend, CODE[backend][digest])
        assert known == kv_layouts.results(backend, version)


def test_the_original_layout_on_the_pinned_release() -> None:
    """Prefill TP 16, decode TP 8, 8 KV heads: not one head in its place."""
    rows = available(lambda: command.measure(releases.PINNED[0], (8,)))
    row = next(r for r in rows if (r["backend"], r["prefill"], r["decode"]) == ("nixl", 16, 8))
    assert (row["in_place"], row["of"], row["goes_on"]) == (0, 128, "early")
    assert row["outside"] > 0
    equal = next(r for r in rows if (r["backend"], r["prefill"], r["decode"]) == ("nixl", 8, 8))
    assert (equal["in_place"], equal["of"], equal["outside"], equal["goes_on"]) == (128, 128, 0, "last")


def test_the_page_and_the_table_agree() -> None:
    page = command.PAGE.read_text()
    table = page.partition(command.START)[2].partition(command.END)[0]
    for backend, spans in SPANS.items():
        lines = [line for line in table.splitlines() if line.startswith(f"| {backend} ")]
        assert len(lines) == len(spans)
        for line, (first, last, results) in zip(lines, spans, strict=True):
            cells = [re.sub(r"\*", "", cell.strip()) for cell in line.strip("|").split("|")]
            assert cells[1] == (first if first == last else f"{first} to {last}")
            assert cells[2:] == [results[kind] for kind in command.RELATIONS]


@pytest.mark.releases
def test_every_release_is_in_the_table(version: str) -> None:
    found = measured(version, command.KV_HEADS)
    for backend in command.BACKENDS:
        assert kv_layouts.measured_as(backend, version, None) == version, "measure it: bench/kv_layouts.py"
        assert found[backend] == kv_layouts.results(backend, version)
