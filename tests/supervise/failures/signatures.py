"""The lines of data/signatures.txt, by the known failure that they give away."""

from __future__ import annotations

from pathlib import Path

DYNAMO = "2026-11-25T14:22:00.832868Z ERROR "
NCCL = "gpu01:118:530 [0] "
_FILE = Path(__file__).parent / "data" / "signatures.txt"


def _read() -> dict[str, tuple[str, ...]]:
    records = _FILE.read_text().split("\n== ")[1:]
    parts = (record.strip("\n").partition("\n") for record in records)
    return {key: tuple(text.split("\n\n")) for key, _, text in parts}


LINES = _read()
