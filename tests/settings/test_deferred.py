"""What importing the settings leaves out, and that it is there for whoever wants it."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.runner import ROOT

START = """
import os, sys
before = dict(os.environ)
from entrypoint.settings.deferred import quick_pydantic
with quick_pydantic():
    import entrypoint.settings.load
from entrypoint.settings.schema import Settings
assert Settings(tp="4").tp == 4
assert dict(os.environ) == before
"""


def python(code: str, **environ: str) -> str:
    """The output of a new interpreter: this one has asyncio and pydantic already."""
    done = subprocess.run(
        [sys.executable, "-c", START + code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environ},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_asyncio_and_the_search_for_plugins_are_left_out() -> None:
    inside = ("asyncio.events", "email", "zipfile")  # what the two modules import first
    assert python(f"print([name for name in {inside} if name in sys.modules])") == "[]\n"


def test_a_variable_for_pydantic_is_given_back() -> None:
    assert (
        python("print(os.environ['PYDANTIC_DISABLE_PLUGINS'])", PYDANTIC_DISABLE_PLUGINS="mine") == "mine\n"
    )


def test_whoever_uses_them_gets_them() -> None:
    assert python("""
import asyncio, importlib.metadata
from importlib.metadata import entry_points
import asyncio.subprocess

async def answer():
    return importlib.metadata.version("pydantic-settings") and len(entry_points()) > 0

print(asyncio.run(answer()), asyncio.subprocess.PIPE, hasattr(importlib.metadata, "nothing"))
""").endswith("True -1 False\n")  # fmt: skip
