"""Keys of a file store that must not grow old."""

from __future__ import annotations

import os
from pathlib import Path

from entrypoint.supervise.file_store import Keeper, touch
from tests.support.runner import until

OLD = 1_000_000_000.0


def key(store: Path, name: str = "v1/instances/a%2Fb") -> Path:
    path = store / name
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    os.utime(path, (OLD, OLD))
    return path


def test_every_key_becomes_as_new_and_none_is_made(tmp_path: Path) -> None:
    keys = [key(tmp_path, "v1/instances/a"), key(tmp_path, "v1/mdc/b")]
    touch(str(tmp_path))
    touch(str(tmp_path / "nowhere"))
    assert all(path.stat().st_mtime > OLD and path.read_text() == "{}" for path in keys)
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == sorted(keys)


def test_keys_are_kept_until_their_workers_do_not_live(tmp_path: Path) -> None:
    path, asked = key(tmp_path), []

    def alive() -> bool:
        asked.append(path.stat().st_mtime)
        return len(asked) < 2

    keeper = Keeper((str(tmp_path),), alive)
    keeper.start()
    until(lambda: len(asked) == 2, "two rounds", 20)
    keeper.close()
    assert asked[0] == OLD < asked[1]
