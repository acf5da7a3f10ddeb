"""The sglang releases' own words: what they say in passing is no failure, and their bars are counted."""

from __future__ import annotations

import ast
import functools
import os
import re
import warnings
import zipfile
from collections.abc import Iterator

import pytest

from bench import releases
from entrypoint.supervise.failures.known import KNOWN_FAILURES
from entrypoint.supervise.output.progress import Progress

HARMLESS = {"debug": "DEBUG", "info": "INFO", "warning": "WARN", "info_once": "INFO", "warning_once": "WARN"}
OTHER_BARS = ("code", "prepare input", "prepare output", "assert_close", "cases")
"""tqdm's descriptions in benchmarks, tests and models of other kinds."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The pinned release, and with ``pytest -m releases`` every one on the registry."""
    if "version" in metafunc.fixturenames:
        asked = "releases" in (metafunc.config.option.markexpr or "")
        others = [v for v in releases.versions() if v != releases.PINNED[0]] if asked else []
        every = [pytest.param(v, marks=pytest.mark.releases) for v in others]
        metafunc.parametrize("version", [releases.PINNED[0], *every])


@functools.cache
def calls(version: str) -> tuple[tuple[str, str], ...]:
    """(function, first text or desc=) of every call with one in the release's runtime."""
    try:
        releases.unpack("sglang", version)
    except releases.UnavailableError as error:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(f"needed and not to be had: {error}")
        pytest.skip(str(error))
    found: list[tuple[str, str]] = []
    wheel = next((releases.CACHE / "wheels").glob(f"sglang-{version}-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith("sglang/srt/") and name.endswith(".py"):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # escapes that the release does not mean
                    found += _calls(ast.parse(archive.read(name)))
    return tuple(found)


def _calls(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name == "tqdm":
            texts = [keyword.value for keyword in node.keywords if keyword.arg == "desc"]
        else:
            texts = node.args[:1] if name in (*HARMLESS, "set_description") else []
        for text in map(_text, texts):
            if text:
                yield name, text


def _text(node: ast.expr) -> str:
    """The text that a literal makes, with 7 for what is put into it."""
    if isinstance(node, ast.Constant):
        return (
            re.sub(r"%[-+ #0]*\d*(?:\.\d+)?[a-zA-Z]", "7", node.value) if isinstance(node.value, str) else ""
        )
    if isinstance(node, ast.JoinedStr):
        return "".join(str(v.value) if isinstance(v, ast.Constant) else "7" for v in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    return ""


def test_what_it_says_in_passing_is_no_failure(version: str) -> None:
    said = [(name, text) for name, text in calls(version) if name in HARMLESS]
    assert len(said) > 800
    for name, text in said:
        for head in (f"2026-11-25T14:22:00.832868Z {HARMLESS[name]:>5} a.b: ", "[2026-11-25 14:22:00 TP0] "):
            for line in (head + text).split("\n"):
                wrong = [known.key for known in KNOWN_FAILURES if known.signature.search(line)]
                assert not wrong, line


def test_its_bars_are_counted(version: str) -> None:
    bars = {text for name, text in calls(version) if name in ("tqdm", "set_description")} - {*OTHER_BARS}
    assert len(bars) > 5
    for what in bars:
        progress = Progress("sglang", 0.0)
        progress.feed(f"{what}:  31%|███▏      | 5/16 [01:35<03:11, 17.1s/it]", 1.0)
        assert (progress.done, progress.total) == (5, 16), what
