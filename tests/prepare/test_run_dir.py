"""GLM47_RUN_DIR is ours, and one runner's at a time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from entrypoint.errors import RunnerError
from entrypoint.prepare import run_dir

STRANGER = 12345
"""A uid that nobody here has."""
Prepared = list[tuple[str, str]]
"""What to do beforehand: verb and path, "" for GLM47_RUN_DIR itself."""
OURS: dict[str, Prepared] = {
    "not there yet": [],
    "ours": [("mkdir", "")],
    "ours, with what an earlier run left": [("mkdir", ""), ("mkdir", "model")],
    "root's, for all to write, as an emptyDir": [("mkdir", ""), ("open", "")],
    "a link of ours": [("link", "")],
}
FOREIGN: dict[str, tuple[Prepared, str]] = {
    "a stranger's": ([("mkdir", ""), ("give", "")], "it is of uid 12345"),
    "a stranger's, open to all": ([("mkdir", ""), ("open", ""), ("give", "")], "it is of uid 12345"),
    "a stranger's link to ours": ([("link", ""), ("give", "")], "the link is of uid 12345"),
    "a stranger's directory in it": (
        [("mkdir", ""), ("mkdir", "model"), ("give", "model")], "model in it is of uid 12345",
    ),
    "a stranger's link in it": (
        [("mkdir", ""), ("link", "model"), ("give", "model")], "model in it is of uid 12345",
    ),
    "a stranger's file in it": (
        [("mkdir", ""), ("touch", "x"), ("give", "x")], "x in it is of uid 12345",
    ),
}  # fmt: skip
NO_LOCK = ("fifo", "mkdir", "link")


def prepare(path: Path, steps: Prepared) -> None:
    for verb, name in steps:
        at = path / name if name else path
        if verb == "mkdir":
            at.mkdir()
        elif verb == "open":
            at.chmod(0o2777)
        elif verb == "touch":
            at.touch()
        elif verb == "fifo":
            os.mkfifo(at)
        elif verb == "link":
            (path.parent / "real").mkdir()
            at.symlink_to(path.parent / "real")
        else:
            os.lchown(at, STRANGER, 0)


@pytest.mark.parametrize("prepared", OURS.values(), ids=OURS.keys())
def test_ours_is_taken(prepared: Prepared, tmp_path: Path) -> None:
    path = tmp_path / "run"
    prepare(path, prepared)
    run_dir.make(str(path))
    assert path.is_dir() and not [*path.glob(".write-test*")]
    os.close(run_dir.lock(str(path), 1)[0])


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize(("prepared", "words"), FOREIGN.values(), ids=FOREIGN.keys())
def test_another_user_s_is_refused(prepared: Prepared, words: str, tmp_path: Path) -> None:
    path = tmp_path / "run"
    prepare(path, prepared)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunnerError, match=words) as error:
        run_dir.make(str(path))
    assert error.value.exit_code == 78 and "GLM47_RUN_DIR" in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_second_runner_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    first, _ = run_dir.lock(str(tmp_path), 4711)
    for _ in range(2):
        with pytest.raises(RunnerError, match=r"another runner \(pid 4711\) uses it") as error:
            run_dir.lock(str(tmp_path), 4712)
        assert error.value.exit_code == 78
    os.close(first)
    os.close(run_dir.lock(str(tmp_path), 4712)[0])


@pytest.mark.parametrize("verb", NO_LOCK)
def test_a_lock_that_cannot_be_made_is_said(verb: str, tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    prepare(path, [(verb, run_dir.LOCK)])
    with pytest.raises(RunnerError, match=r"cannot write GLM47_RUN_DIR: .*runner\.lock") as error:
        run_dir.lock(str(path), 1)
    assert error.value.exit_code == 73
