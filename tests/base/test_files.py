"""Replacing a file: whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from entrypoint.base.files import replace_file, replacing


def test_the_new_content_is_there_at_once_and_readable_for_all(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    for data in (b"one", b"another one"):
        replace_file(path, data)
        assert path.read_bytes() == data and path.stat().st_mode & 0o777 == 0o644
    assert [p.name for p in tmp_path.iterdir()] == ["status.json"]


def test_a_reader_keeps_the_old_file_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with path.open() as reader, replacing(path, mode=0o600, prefix=".new-") as file:
        file.write(b"new")
        assert path.read_text() == reader.read() == "old"
        assert len(list(tmp_path.glob(".new-*"))) == 1
    assert path.read_text() == "new" and path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_fails_half_way_leaves_the_old_file_and_no_other(tmp_path: Path, error: type) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as file:
        file.write(b"half")
        raise error
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"file": "old"}
