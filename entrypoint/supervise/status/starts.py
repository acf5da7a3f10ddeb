"""How long earlier starts of this container took, and what that says of the one under way.

Kept in GLM47_CACHE_DIR, by what the container holds. All times are seconds.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from entrypoint.base.files import replace_file
from entrypoint.base.foreign import from_json
from entrypoint.plan.types import Plan

KEPT = 5
"""Starts that are remembered; the median counts, so that one start with a cold cache does not."""
PATIENCE = 5.0
"""Seconds that the record of a start waits for the status that says it is over."""


def file_of(plan: Plan) -> Path | None:
    """Where the starts of this container are kept: every kind of container and rank has its own."""
    if plan.cache_dir is None:
        return None
    ranks = f"-{plan.rank}of{plan.nnodes}" if plan.nnodes > 1 else ""
    return Path(plan.cache_dir, "starts", f"{'+'.join(plan.roles)}{ranks}.json")


def read(path: Path | None) -> list[dict[str, Any]]:
    """The starts in `path`, oldest first; what cannot be read is none."""
    if path is None:
        return []
    try:
        found = from_json(path.read_text())
    except (OSError, ValueError):
        return []
    return [start for start in found if _is_start(start)] if isinstance(found, list) else []


def _is_start(start: Any) -> bool:
    return (
        isinstance(start, dict)
        and isinstance(start.get("ready"), int | float)
        and isinstance(start.get("phases"), dict)
        and all(isinstance(seconds, int | float) for seconds in start["phases"].values())
    )


def start_of(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a start that is over, from the status object."""
    return {"ready": snapshot["uptime"], "phases": _phases(snapshot)[1], "at": round(time.time())}


def _phases(snapshot: Mapping[str, Any]) -> tuple[str | None, dict[str, float]]:
    """(phase, seconds by phase) of the engine that has spent most: a start is as slow as its slowest."""
    found = [(p.get("phase"), p.get("phase_seconds") or {}) for p in snapshot["processes"]]
    return max(found, key=lambda process: sum(process[1].values()), default=(None, {}))


def remember(plan: Plan, snapshot: Callable[[], Mapping[str, Any]]) -> None:
    """Keep how long this start took, for the next one's page; nobody waits for the file system."""
    threading.Thread(target=record, args=(plan, snapshot), name="starts", daemon=True).start()


def record(plan: Plan, snapshot: Callable[[], Mapping[str, Any]]) -> None:
    """Add this start to those that are kept, once the status says that it is over. It may wait for that."""
    path = file_of(plan)
    if path is None:
        return
    deadline = time.monotonic() + PATIENCE
    while not snapshot().get("ready"):
        if time.monotonic() > deadline:
            return
        time.sleep(0.1)
    starts = [*read(path), start_of(snapshot())][-KEPT:]
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps(starts).encode())


def remaining(snapshot: Mapping[str, Any], starts: Sequence[Mapping[str, Any]]) -> float | None:
    """Seconds until this start is over, if it goes like the `starts` before it; None: there were none.

    A phase under way still takes what it took before less what it has; those that have not come take what
    they took; the rest of the earlier starts, which belongs to no phase, passes with the clock.
    """
    if not starts or snapshot["started"]:
        return None
    import statistics  # decimal and fractions come with it: not in the loop that records a start

    whole = statistics.median(start["ready"] for start in starts)
    now, spent = _phases(snapshot)
    usual = {
        phase: statistics.median(start["phases"].get(phase, 0.0) for start in starts)
        for phase in dict.fromkeys(phase for start in starts for phase in start["phases"])
    }
    if not spent or not usual:
        return max(0.0, float(whole - snapshot["uptime"]))
    order = [*usual]
    coming = order[order.index(now) :] if now in usual else [phase for phase in order if phase not in spent]
    ahead = sum(
        max(0.0, usual[phase] - spent.get(phase, 0.0))
        for phase in coming
        if phase == now or phase not in spent
    )
    outside = max(0.0, whole - sum(usual.values()) - max(0.0, snapshot["uptime"] - sum(spent.values())))
    return float(ahead + outside)
