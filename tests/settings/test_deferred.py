"""What importing the settings leaves out, and that it is there for whoever wants it."""

from __future__ import annotations

import os
import subprocess
import sys

from entrypoint.settings.deferred import STOOD_IN
from tests.support.runner import ROOT

_ONLY_FROM_3_11 = ("importlib.resources.abc",) if sys.version_info < (3, 11) else ()

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


def test_what_no_setting_needs_is_left_out() -> None:
    inside = ("asyncio.events", "email", "zipfile")  # what the two deferred modules import first
    assert python(f"print([name for name in {(*inside, *STOOD_IN)} if name in sys.modules])") == "[]\n"


def test_every_stand_in_stands_for_something_that_pydantic_imports() -> None:
    """One that does not is a line too many."""
    code = "import sys, pydantic.main, pydantic.types, pydantic_settings\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert set(STOOD_IN) <= {*done.stdout.split(), *_ONLY_FROM_3_11}


def test_nothing_of_ours_holds_a_stand_in() -> None:
    """It would keep it: a stand-in's module is the real one as soon as the settings are there."""
    assert python("""
from entrypoint.settings.deferred import _Kind, _Late
ours = [module for name, module in sys.modules.items() if name.startswith("entrypoint")]
held = [(m.__name__, n) for m in ours for n, v in vars(m).items() if isinstance(v, (_Kind, _Late))]
print(sorted(held))
""") == "[('entrypoint.settings.deferred', '_StandIn')]\n"  # fmt: skip


def test_a_stand_in_that_is_used_all_the_same_gives_what_the_real_one_does() -> None:
    assert python("""
import logging
from pydantic_settings.utils import logger
from pydantic._internal import _validators
assert logger.isEnabledFor(logging.ERROR) and not logger.isEnabledFor(logging.DEBUG)
logger.setLevel(logging.DEBUG)
assert logging.getLogger("pydantic_settings").level == logging.DEBUG
assert str(_validators.ZoneInfo("UTC").key) == "UTC"
""") == ""  # fmt: skip


def test_a_user_who_asks_pydantic_settings_for_its_log_gets_a_start() -> None:
    assert python("print(Settings(dp='2').dp)", PYDANTIC_SETTINGS_DEBUG="1") == "2\n"


def test_a_variable_for_pydantic_is_given_back() -> None:
    assert (
        python("print(os.environ['PYDANTIC_DISABLE_PLUGINS'])", PYDANTIC_DISABLE_PLUGINS="mine") == "mine\n"
    )


def test_whoever_uses_them_gets_them() -> None:
    assert python("""
import argparse, asyncio, decimal, fractions, importlib.metadata, logging, uuid, zoneinfo
from importlib.metadata import entry_points
import asyncio.subprocess

async def answer():
    return importlib.metadata.version("pydantic-settings") and len(entry_points()) > 0

class Parser(argparse.ArgumentParser):
    pass

assert Parser(prog="x").parse_args([]) == argparse.Namespace()
assert decimal.Decimal("0.5") == fractions.Fraction(1, 2) and isinstance(uuid.uuid4(), uuid.UUID)
assert zoneinfo.ZoneInfo("UTC") is zoneinfo.ZoneInfo("UTC") and logging.getLogger("x").name == "x"
print(asyncio.run(answer()), asyncio.subprocess.PIPE, hasattr(importlib.metadata, "nothing"))
""").endswith("True -1 False\n")  # fmt: skip
