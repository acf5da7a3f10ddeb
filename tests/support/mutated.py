"""JSON as other programs, editors and full disks make it: one to three places hold something else."""

from __future__ import annotations

import copy
import random
from typing import Any

ODD: tuple[Any, ...] = (
    None, 0, -1, 1e30, float("nan"), True, "x", "", [], {}, [1], {"a": 1}, "1", [{}], [[]], 1.5, "x" * 500,
    "\x1b[2J",
)  # fmt: skip


def mutated(data: Any, chance: random.Random) -> Any:
    """`data` with one to three of its values replaced by others of any kind, left out, or added to."""
    changed = copy.deepcopy(data)
    for _ in range(chance.randint(1, 3)):
        inside = changed
        while isinstance(inside, dict | list) and inside:
            keys: list[Any] = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
            key = chance.choice(keys)
            if chance.random() < 0.6 and isinstance(inside[key], dict | list):
                inside = inside[key]
                continue
            if chance.random() < 0.3:
                del inside[key]
            else:
                inside[key] = copy.deepcopy(chance.choice(ODD))
            break
    return changed
