"""Adapters, channels, limits, the cache, a sample of reading, on trees of files as the kernel has them."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from entrypoint.node.machine import devices, reading
from entrypoint.node.machine.facts import Adapters
from entrypoint.node.machine.side_by_side import side_by_side
from tests.node.model.files import SHARDS, model_directory


def adapter(base: Path, name: str, state: str = "4: ACTIVE", numa: str = "0") -> None:
    port = base / name / "ports" / "1"
    port.mkdir(parents=True)
    (port / "state").write_text(f"{state}\n")
    (port / "rate").write_text("400 Gb/sec (4X NDR)\n")
    (base / name / "device").mkdir()
    (base / name / "device" / "numa_node").write_text(f"{numa}\n")


def test_adapters(tmp_path: Path) -> None:
    base, verbs = tmp_path / "infiniband", tmp_path / "verbs"
    adapter(base, "mlx5_0")
    adapter(base, "mlx5_1", "1: DOWN", "-1")
    found = devices.adapters(base, verbs)
    assert [(h.name, h.active, h.state, h.numa) for h in found.seen] == [
        ("mlx5_0", True, "ACTIVE", 0),
        ("mlx5_1", False, "DOWN", None),
    ]
    assert found.closed is not None
    verbs.mkdir()
    (verbs / "uverbs0").touch()
    assert devices.adapters(base, verbs).closed is None
    assert devices.adapters(tmp_path / "none", verbs) == Adapters((), None)


def test_imex_channels(tmp_path: Path) -> None:
    place = tmp_path / "channels"
    assert devices.imex(place) == f"no {place}"
    place.mkdir()
    assert devices.imex(place) == f"{place} is empty"
    (place / "channel0").mkdir()  # cannot be opened for writing, whoever asks
    assert "channel0" in devices.imex(place)
    (place / "channel0").rmdir()
    (place / "channel0").touch()
    assert devices.imex(place) == ""


def test_limits_and_shared_memory(tmp_path: Path) -> None:
    assert devices.limits().shm
    assert devices.limits(tmp_path / "none").shm_error


def test_the_cache_is_made_and_left_as_it_was(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"
    found = devices.cache(str(place))
    assert found.error is None and found.free and [*place.iterdir()] == []
    (tmp_path / "file").touch()
    assert devices.cache(str(tmp_path / "file" / "b")).error


def test_a_sample_is_counted_as_it_is_read(tmp_path: Path) -> None:
    model = model_directory(tmp_path / "m")
    big = model / SHARDS[0]
    size = 100 << 20
    os.truncate(big, size)
    found = reading.sample(model)
    assert found is not None and found.error is None
    assert (found.shard, found.size, found.read) == (big.name, size, size)
    assert found.total == sum(path.stat().st_size for path in model.glob("*.safetensors"))
    assert found.rate == pytest.approx(size / found.seconds)


def test_a_sample_takes_no_longer_than_it_may(tmp_path: Path) -> None:
    model = model_directory(tmp_path / "m")
    os.truncate(model / SHARDS[0], 1 << 40)
    began = time.monotonic()
    found = reading.sample(model, 0.2)
    assert time.monotonic() - began < 0.2 + reading.PATIENCE + 1
    assert found is not None and 0 < found.read < 1 << 40


def test_without_weights_there_is_no_sample(tmp_path: Path) -> None:
    assert reading.sample(tmp_path) is None
    assert reading.sample(tmp_path / "none") is None


def test_a_look_that_hangs_keeps_nobody_waiting() -> None:
    over = threading.Event()
    answers, silent = side_by_side({"quick": lambda: 1, "hangs": lambda: over.wait(30)}, 0.2)
    assert (answers, silent) == ({"quick": 1}, ("hangs",))
    over.set()
    with pytest.raises(ZeroDivisionError):
        side_by_side({"broken": lambda: 1 / 0}, 5)
