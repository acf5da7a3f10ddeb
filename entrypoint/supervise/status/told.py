"""What another runner tells of itself, with every field of the kind that its readers expect.

At a runner's address there may be something else: an API server, a proxy, a runner of another release. What
is no status is refused, and a field that is of another kind counts as not said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any


def _kind(*types: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, types) and not (isinstance(value, bool) and bool not in types)


_text, _flag, _object = _kind(str), _kind(bool), _kind(dict)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(line, str) for line in value)


def _slow(value: object) -> bool:
    return isinstance(value, dict) and all(_text(value.get(name)) for name in SLOW)


SLOW = ("process", "step", "node", "text")
"""What is said of each node that is slow."""
Fields = Mapping[str, tuple[Callable[[object], bool], Callable[[], Any]]]
"""By name: whether a value is of the kind, and what counts where none is."""


def _none() -> None:
    return None


_STATUS: Fields = {
    "version": (_text, str),
    "started": (_flag, bool),
    "roles": (_texts, list),
    "rank": (_count, int),
    "nnodes": (_count, lambda: 1),
    "node": (_text, _none),
    "model": (_text, _none),
    "uptime": (_number, float),
    "time": (_number, _none),
    "reason": (_text, _none),
    "exit_code": (_count, _none),
    "waiting_for": (_texts, list),
    "gates": (_kind(list), list),
    "clocks": (_object, dict),
    "probes": (_object, dict),
    "warnings": (_texts, list),
    "slow": (lambda value: isinstance(value, list) and all(map(_slow, value)), list),
    "load": (_object, dict),
}
_PROCESS: Fields = {
    "role": (_text, str),
    "why": (_text, _none),
    "pid": (_count, _none),
    "age": (_number, _none),
    "restarts": (_count, int),
    "exit_code": (_count, _none),
    "stuck": (_text, _none),
    "stuck_seconds": (_number, int),
    "hangs": (_count, int),
    "requests_in_flight": (_number, _none),
    "phase": (_text, _none),
    "phase_seconds": (_object, dict),
    "progress": (_text, _none),
    "pace": (_object, dict),
}
_NEEDED: Mapping[str, Callable[[object], bool]] = {"state": _text, "ready": _flag}
"""What makes a status one, and the object of a process, which has a name besides."""
_VIEW: Fields = {
    "name": (_text, _none),
    "holds": (_text, _none),
    "seen": (_text, _none),
    "why": (_text, _none),
    "lines": (_object, dict),
    "logs": (_object, dict),
    "starts": (lambda value: isinstance(value, list) and all(map(_number, value)), list),
    "remaining": (_number, _none),
    "in_flight": (_number, _none),
    "tokens_per_second": (_number, _none),
}


_STATE: Fields = {name: _STATUS[name] for name in ("reason", "waiting_for")}
"""What a probe's answer says besides the state."""


def state(told: object) -> dict[str, Any]:
    """What a probe (`/readyz`) answers, complete. ValueError: it is no runner's answer."""
    if not isinstance(told, dict) or not _text(told.get("state")):
        raise ValueError("no answer of a runner")
    return _of_kind(told, _STATE)


def status(told: object) -> dict[str, Any]:
    """The status that `told` is, complete; fields that are not known here are kept.

    ValueError: it is no runner's status.
    """
    if not isinstance(told, dict) or not all(holds(told.get(name)) for name, holds in _NEEDED.items()):
        raise ValueError("no status of a runner")
    processes = told.get("processes")
    if not isinstance(processes, list):
        raise ValueError("no status of a runner")
    return _of_kind(told, _STATUS) | {"processes": [_process(p) for p in processes]}


def _process(told: object) -> dict[str, Any]:
    if not isinstance(told, dict) or not _text(told.get("name")):
        raise ValueError("no status of a runner: a process without a name")
    if not all(holds(told.get(name)) for name, holds in _NEEDED.items()):
        raise ValueError(f"no status of a runner: {told['name']}: its state is not said")
    return _of_kind(told, _PROCESS)


def view(told: object) -> dict[str, Any]:
    """The view of a node (`/view`) that `told` is, complete; without a status where the node gave none.

    ValueError: it is no view.
    """
    if not isinstance(told, dict):
        raise ValueError("no view of a runner")
    found = _of_kind(told, _VIEW)
    return found | {"status": status(told["status"]) if told.get("status") else None}


_OVER: Fields = {"code": (_count, int), "reason": (_text, str)}


def event(told: object) -> dict[str, Any]:
    """An event of a page's stream: `count` of all nodes, or None; views by number; how the runner ends.

    ValueError: it is none, or one of its views is none.
    """
    if not isinstance(told, dict) or not isinstance(told.get("nodes"), dict):
        raise ValueError("no event of a runner")
    over, count = told.get("over"), told.get("count")
    return {
        "count": count if _count(count) else None,
        "over": _of_kind(over, _OVER) if isinstance(over, dict) else None,
        "nodes": {int(number): view(node) for number, node in told["nodes"].items()},
    }


def _of_kind(told: dict[str, Any], fields: Fields) -> dict[str, Any]:
    found = dict(told)
    for name, (holds, otherwise) in fields.items():
        if name not in found or not holds(found[name]):
            found[name] = otherwise()
    return found
