"""Paths that are none, or of another kind than meant: one line each, whatever the command."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from entrypoint.commands.cli import cli


def fifo(directory: Path) -> str:
    os.mkfifo(directory / "fifo")
    return str(directory / "fifo")


def loop(directory: Path) -> str:
    (directory / "loop").symlink_to("loop")
    return str(directory / "loop")


def noise(directory: Path) -> str:
    (directory / "noise").write_bytes(bytes(range(256)) * 64)
    return str(directory / "noise")


def folder(directory: Path) -> str:
    (directory / "folder").mkdir()
    return str(directory / "folder")


PLACES: dict[str, Callable[[Path], str]] = {
    "nothing": lambda _: "",
    "not there": lambda d: str(d / "a" / "b"),
    "too long a name": lambda _: "x" * 5000,
    "too long a path": lambda d: str(d) + "/x" * 5000,
    "below a file": lambda d: noise(d) + "/below",
    "a loop of links": loop,
    "an empty directory": folder,
    "bytes of all kinds": noise,
    "a device": lambda _: "/dev/null",
    "two lines": lambda d: f"{d}/a\nb",
    "a name that is no text": lambda d: f"{d}/\udcff",
}
COMMANDS: dict[str, tuple[str, ...]] = {
    "diagnose": ("diagnose", "{}"),
    "diagnose two": ("diagnose", "--delta", "{}", "{}"),
    "model check": ("model", "check", "--path", "{}"),
    "patch check": ("patch", "check", "--source", "{}"),
    "patch apply": ("patch", "apply", "--source", "{}"),
    "patch revert": ("patch", "revert", "--source", "{}"),
    "patch python": ("patch", "check", "--python", "{}"),
    "flashinfer": ("flashinfer", "generate", "--source", "{}"),
    "bench compare": ("bench", "compare", "{}", "{}"),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_path_that_is_none(
    words: tuple[str, ...], place: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = place(tmp_path)
    found = CliRunner().invoke(cli, [word.replace("{}", path) for word in words])
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    assert found.exit_code in (0, 1, 2, 66, 73, 78)
    assert found.output.strip(), "it says nothing"
    assert "Traceback" not in found.output
    if not os.path.lexists(os.fsencode(path)[:4000]):
        assert found.exit_code != 0
