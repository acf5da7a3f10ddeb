"""`check` as a whole: what hangs is named and keeps nobody waiting; what no start meets is no problem."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from entrypoint.commands.check import command
from entrypoint.node.machine import devices, reading
from tests.node.model.files import model_directory

HANG, LONGEST = 60.0, 30.0
"""Seconds that a look hangs, and that a check may take on a machine that is busy with other things."""


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """What hangs waits for this; it comes when the test is over."""
    monkeypatch.setattr(command, "PATIENCE", 0.5)
    over = threading.Event()
    yield over
    over.set()


def environ(tmp_path: Path) -> dict[str, str]:
    """An engine by name only, so that a machine is looked at as for SGLang."""
    site = tmp_path / "engine" / "lib" / "python3.11" / "site-packages"
    for name in ("ai_dynamo-0.8.1", "sglang-0.5.6.post2", "flashinfer_python-0.5.3"):
        (site / f"{name}.dist-info").mkdir(parents=True)
    for name in ("dynamo", "sglang"):
        (site / name).mkdir()
        (site / name / "__init__.py").touch()
    python = tmp_path / "engine" / "bin" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    return {
        "ROLE": "single", "GLM47_PYTHON": str(python), "GLM47_RUN_DIR": str(tmp_path / "run"),
        "GLM47_MODEL_PATH": str(model_directory(tmp_path / "model")), "GLM47_QUANTIZATION": "none",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("where", "what", "state"),
    [((devices, "cache"), "cache", "problem"), ((reading, "sample"), "reading", "problem"),
     ((devices, "limits"), "limits", "warning"), ((command, "_ports"), "ports", "warning")],
)  # fmt: skip
def test_a_look_that_hangs_is_named(
    monkeypatch: pytest.MonkeyPatch,
    never: threading.Event,
    tmp_path: Path,
    where: tuple[object, str],
    what: str,
    state: str,
) -> None:
    monkeypatch.setattr(*where, lambda *_: never.wait(HANG))
    began = time.monotonic()
    found = command.check(environ(tmp_path), tmp_path)
    assert time.monotonic() - began < LONGEST
    assert [f.state for f in found if f.what == what and "no answer" in f.text] == [state], found


def test_the_model_is_read_and_the_cache_written(tmp_path: Path) -> None:
    found = {f.what: f for f in command.check(environ(tmp_path), tmp_path)}
    assert "GB/s" in found["reading"].text and found["cache"].state == "ok"
    assert "cannot see 4 GPUs" in found["GPUs"].text or found["GPUs"].state == "ok"
