"""GLM47_RUN_DIR is ours, and one runner's at a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from entrypoint.errors import RunnerError
from entrypoint.prepare import run_dir

STRANGER = 12345
"""A uid that nobody here has."""
OURS: dict[str, Callable[[Path], object]] = {
    "not there yet": lambda path: None,
    "below what is not there yet": lambda path: None,
    "ours": lambda path: path.mkdir(mode=0o700),
    "ours, with what an earlier run left": lambda path: (path.mkdir(), (path / "model").mkdir()),
    "root's, for all to write, as an emptyDir": lambda path: (path.mkdir(), path.chmod(0o2777)),
    "a link of ours": lambda path: (
        (path.parent / "real").mkdir(), path.symlink_to(path.parent / "real")
    ),
}  # fmt: skip
FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "a stranger's": (lambda path: (path.mkdir(), os.chown(path, STRANGER, 0)), "it is of uid 12345"),
    "a stranger's, open to all": (
        lambda path: (path.mkdir(), path.chmod(0o777), os.chown(path, STRANGER, 0)), "it is of uid 12345",
    ),
    "a stranger's link to ours": (
        lambda path: (
            (path.parent / "real").mkdir(), path.symlink_to(path.parent / "real"),
            os.lchown(path, STRANGER, 0),
        ),
        "the link is of uid 12345",
    ),
    "a stranger's directory in it": (
        lambda path: ((path / "model").mkdir(parents=True), os.chown(path / "model", STRANGER, 0)),
        "model in it is of uid 12345",
    ),
    "a stranger's link in it": (
        lambda path: (
            path.mkdir(), (path / "model").symlink_to("/etc"), os.lchown(path / "model", STRANGER, 0),
        ),
        "model in it is of uid 12345",
    ),
}  # fmt: skip
NO_LOCK: dict[str, Callable[[Path], object]] = {
    "a FIFO": lambda path: os.mkfifo(path),
    "a directory": lambda path: path.mkdir(),
    "a link to a file": lambda path: path.symlink_to(path.parent / "other"),
    "a link to nothing": lambda path: path.symlink_to("/nowhere/at/all"),
}


@pytest.mark.parametrize("prepared", OURS.values(), ids=OURS.keys())
def test_ours_is_taken(prepared: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "run"
    prepared(path)
    run_dir.make(str(path))
    assert path.is_dir() and not [*path.glob(".write-test*")]
    os.close(run_dir.lock(str(path), 1))


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize(("prepared", "words"), FOREIGN.values(), ids=FOREIGN.keys())
def test_another_user_s_is_refused(prepared: Callable[[Path], object], words: str, tmp_path: Path) -> None:
    path = tmp_path / "run"
    prepared(path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunnerError, match=words) as error:
        run_dir.make(str(path))
    assert error.value.exit_code == 78 and "GLM47_RUN_DIR" in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_second_runner_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    first = run_dir.lock(str(tmp_path), 4711)
    for _ in range(2):
        with pytest.raises(RunnerError, match=r"another runner \(pid 4711\) uses it") as error:
            run_dir.lock(str(tmp_path), 4712)
        assert error.value.exit_code == 78
    os.close(first)
    os.close(run_dir.lock(str(tmp_path), 4712))


@pytest.mark.parametrize("prepared", NO_LOCK.values(), ids=NO_LOCK.keys())
def test_a_lock_that_cannot_be_made_is_said(prepared: Callable[[Path], object], tmp_path: Path) -> None:
    prepared(tmp_path / run_dir.LOCK)
    with pytest.raises(RunnerError, match=r"cannot write GLM47_RUN_DIR: .*runner\.lock") as error:
        run_dir.lock(str(tmp_path), 1)
    assert error.value.exit_code == 73
    assert not (tmp_path / "other").exists()
