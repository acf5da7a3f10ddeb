"""The edits as part of a plan."""

from __future__ import annotations

import sys
from pathlib import Path

from entrypoint.plan.types import Plan, SourcePatch
from entrypoint.prepare.patches.for_plan import patch
from tests.support.plans import plan, process


def plan_for(source_dir: Path, run_dir: Path, where: str, python: str = sys.executable) -> Plan:
    return plan(
        process("decode", argv=(python, "-m", "dynamo.sglang"), env={"A": "1"}),
        process("prefill", argv=(python, "-m", "dynamo.sglang"), env={"PYTHONPATH": "/own"}),
        process("frontend", argv=(python, "-m", "dynamo.frontend")),
        source_patch=SourcePatch(str(source_dir), "pad", where),
        run_dir=str(run_dir),
    )


def test_an_overlay_reaches_the_engine_and_nobody_else(source_dir: Path, tmp_path: Path) -> None:
    made = plan_for(source_dir, tmp_path / "run", "overlay")
    new, done = patch(made, {"PYTHONPATH": "/user:/more"})
    assert done is not None and done.where == "overlay"
    site = done.env["PYTHONPATH"]
    assert Path(site, "sitecustomize.py").is_file()
    assert new.process("decode").env == {"A": "1", "PYTHONPATH": f"{site}:/user:/more"}
    assert new.process("prefill").env == {"PYTHONPATH": f"{site}:/own"}
    assert "PYTHONPATH" not in new.process("frontend").env


def test_in_place_leaves_the_plan_as_it_is(source_dir: Path, tmp_path: Path) -> None:
    made = plan_for(source_dir, tmp_path / "run", "auto")
    new, done = patch(made, {})
    assert new == made and done is not None and done.where == "inplace"


def test_a_plan_without_the_edit(tmp_path: Path) -> None:
    made = plan(process())
    assert patch(made, {}) == (made, None)
