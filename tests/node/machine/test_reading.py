"""A sample of a model's weights: how much was read, and of what; and directories that have none."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from entrypoint.node.machine import reading
from entrypoint.node.machine.facts import Read
from entrypoint.node.model.weights import INDEX

MIB = 1 << 20


def shard(directory: Path, number: int, size: int) -> Path:
    path = directory / f"model-{number:05}.safetensors"
    path.write_bytes(os.urandom(4096) * (size // 4096) + b"x" * (size % 4096))
    return path


def index(directory: Path, *names: str) -> None:
    (directory / INDEX).write_text(
        json.dumps({"weight_map": {f"w{n}": name for n, name in enumerate(names)}})
    )


def found(directory: Path, seconds: float = 5.0) -> Read:
    read = reading.sample(directory, seconds)
    assert read is not None
    return read


@pytest.mark.parametrize("size", [1, 4095, 4096, 3 * MIB + 17, 8 * MIB, 20 * MIB])
def test_a_shard_is_read_to_its_end(size: int, tmp_path: Path) -> None:
    """Whatever its size: blocks are of 8 MiB, and the last one is shorter."""
    path = shard(tmp_path, 1, size)
    read = found(tmp_path)
    assert (read.shard, read.size, read.total, read.read) == (path.name, size, size, size)
    assert read.error is None and read.seconds > 0


def test_the_sum_is_of_all_shards_and_the_sample_of_one(tmp_path: Path) -> None:
    sizes = [MIB, 2 * MIB, 3 * MIB]
    for number, size in enumerate(sizes):
        shard(tmp_path, number, size)
    read = found(tmp_path)
    assert read.total == sum(sizes)
    assert read.size == max(sizes), "none is large enough to be worth a sample: the largest is taken"


def test_a_small_one_is_no_sample_where_there_are_large_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "SAMPLE", 2 * MIB)
    for number, size in enumerate((4096, 2 * MIB, 3 * MIB, 8192)):
        shard(tmp_path, number, size)
    taken = {found(tmp_path).size for _ in range(20)}
    assert taken <= {2 * MIB, 3 * MIB} and len(taken) == 2, "each of the large ones, by chance"


def test_an_index_says_which_files_are_the_models(tmp_path: Path) -> None:
    own, other = shard(tmp_path, 1, MIB), shard(tmp_path, 2, 5 * MIB)
    index(tmp_path, own.name, own.name)
    read = found(tmp_path)
    assert (read.shard, read.total) == (own.name, MIB), f"{other.name} is not in the index"


def test_links_are_followed(tmp_path: Path) -> None:
    """A hub's cache keeps links to blobs, as the corrected view of a model does."""
    target = tmp_path / "blobs"
    target.mkdir()
    blob = shard(target, 7, MIB)
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").symlink_to(blob)
    assert found(model).read == MIB


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no tmpfs here")
def test_a_file_system_without_direct_reads_is_read_all_the_same() -> None:
    directory = Path("/dev/shm") / f"weights-{os.getpid()}"
    directory.mkdir()
    try:
        shard(directory, 1, 2 * MIB)
        assert found(directory).read == 2 * MIB
    finally:
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()


def nothing(directory: Path) -> Path:
    return directory


def not_there(directory: Path) -> Path:
    return directory / "none"


def a_file(directory: Path) -> Path:
    path = directory / "file"
    path.write_bytes(b"x")
    return path


def other_files(directory: Path) -> Path:
    (directory / "pytorch_model.bin").write_bytes(b"x")
    return directory


def a_shard_is_missing(directory: Path) -> Path:
    index(directory, shard(directory, 1, 4096).name, "model-00002.safetensors")
    return directory


def a_dead_link(directory: Path) -> Path:
    (directory / "model.safetensors").symlink_to(directory / "gone")
    return directory


def an_index_that_is_none(directory: Path) -> Path:
    shard(directory, 1, 4096)
    (directory / INDEX).write_text("{")
    return directory


def a_deep_index(directory: Path) -> Path:
    shard(directory, 1, 4096)
    (directory / INDEX).write_text("[" * 100_000)
    return directory


NONE: tuple[Callable[[Path], Path], ...] = (
    nothing, not_there, a_file, other_files, a_shard_is_missing, a_dead_link, an_index_that_is_none,
    a_deep_index,
)  # fmt: skip


@pytest.mark.parametrize("made", NONE, ids=lambda made: made.__name__)
def test_where_there_are_no_weights_there_is_no_sample(made: Callable[[Path], Path], tmp_path: Path) -> None:
    assert reading.sample(made(tmp_path)) is None


def test_no_time_is_no_sample_and_no_division_by_zero(tmp_path: Path) -> None:
    shard(tmp_path, 1, MIB)
    read = found(tmp_path, 0.0)
    assert read.read == 0 and read.seconds > 0


def test_what_hangs_keeps_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that nobody writes to stands for a file server that does not answer."""
    monkeypatch.setattr(reading, "PATIENCE", 0.1)
    os.mkfifo(tmp_path / "model.safetensors")
    began = time.monotonic()
    read = found(tmp_path, 0.1)
    assert read.read == 0
    assert time.monotonic() - began < 30
    # Its readers are let go.
    with (tmp_path / "model.safetensors").open("r+b", buffering=0):
        pass


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").mkdir()
    read = found(tmp_path)
    assert read.read == 0 and read.error is not None and "directory" in read.error.lower()
