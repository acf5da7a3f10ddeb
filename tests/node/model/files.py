"""Model directories to test with: small, whole, and easy to break."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from entrypoint.commands.demo.model import CONFIG, GENERATION_CONFIG, TOKENIZER_CONFIG
from entrypoint.prepare import model_view

BOS = 151329
SHARDS = tuple(f"model-{n:05d}-of-00003.safetensors" for n in (1, 2, 3))


def shard(tensors: int = 3, size: int = 64) -> bytes:
    """A whole safetensors file of `tensors` tensors with `size` bytes each."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for n in range(tensors):
        header[f"t{n}"] = {"dtype": "U8", "shape": [size], "data_offsets": [n * size, (n + 1) * size]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + bytes(tensors * size)


def model_directory(path: Path, **config: Any) -> Path:
    """A whole model in `path`, without bos_token_id; `config` overrides values of config.json."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(CONFIG | config))
    (path / "generation_config.json").write_text(json.dumps(GENERATION_CONFIG))
    (path / "tokenizer.json").write_text("{}")
    (path / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG))
    for name in SHARDS:
        (path / name).write_bytes(shard())
    weight_map = {f"layer.{n}.weight": name for n, name in enumerate(SHARDS)}
    index = {"metadata": {"total_size": 576}, "weight_map": weight_map}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    return path


def link(path: Path, target: str) -> None:
    """A link in the place of a file."""
    path.unlink()
    path.symlink_to(target)


def fifo(path: Path) -> None:
    """A pipe in the place of a file."""
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    """A directory in the place of a file."""
    path.unlink()
    path.mkdir()


def snapshot(path: Path) -> dict[str, tuple[bytes, int, int]]:
    """Content, time and mode of all files below `path`."""
    return {
        str(p.relative_to(path)): (p.read_bytes(), p.stat().st_mtime_ns, p.stat().st_mode)
        for p in sorted(path.rglob("*"))
        if p.is_file()
    }


def prepare(source: Path, view: Path, bos: int = BOS) -> bool:
    """Make the corrected view of `source` at `view`; whether something was written."""
    return model_view.prepare(str(source), view, bos_token_id=bos)
