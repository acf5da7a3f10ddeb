"""Keys of a file store that must not grow old."""

from __future__ import annotations

import os
import time
from pathlib import Path

from entrypoint.supervise.discovery.file_store import EXPIRY, Keeper, registered, touch
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


def test_only_who_is_whole_and_fresh_counts(tmp_path: Path) -> None:
    def worker(
        component: str, number: str, card: str = "{}", instance: str | None = "{}", age: float = 0.0
    ) -> None:
        for kind, text in (("mdc", card), ("instances", instance)):
            path = tmp_path / "v1" / kind / f"dynamo%2F{component}%2Fgenerate%2F{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if text is not None:
                path.write_text(text)
                os.utime(path, (time.time() - age,) * 2)

    assert registered(str(tmp_path)) == {}
    worker("backend", "1")
    worker("backend", "2", age=EXPIRY / 2)
    worker("prefill", "3")
    assert registered(str(tmp_path)) == {"backend": 2, "prefill": 1}
    worker("prefill", "3", card='{"card_json": {"runtime')
    worker("backend", "2", age=EXPIRY + 1)
    worker("backend", "4", instance=None)
    worker("backend", "5", instance="")
    assert registered(str(tmp_path)) == {"backend": 1}
