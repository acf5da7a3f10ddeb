"""What a view means to a person: one word for a node, what it does, what is wrong with it. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from entrypoint.base.printable import clean
from entrypoint.commands.watch.stream import Followed

SIGNS = {"good": "●", "busy": "◐", "warn": "▲", "bad": "✖", "idle": "○"}
"""A sign of its own for each kind of state: colour is never the only one."""


@dataclass(frozen=True)
class Row:
    """One node as it is shown; times are seconds."""

    name: str
    holds: str
    kind: str
    """Of `SIGNS`."""
    word: str
    doing: str
    share: float | None
    """How much of its start is over; None: it does not start."""
    left: float | None
    up: float | None
    in_flight: float | None
    tokens: float | None


def rows(followed: Sequence[Followed], now: float) -> list[Row]:
    """Every node that any of the runners has told of, at `now` (monotonic seconds)."""
    found: list[Row] = []
    for runner in followed:
        if not runner.nodes:
            where = runner.url.removeprefix("http://")
            found.append(Row(where, "", "bad", "no answer", clean(runner.why), None, None, None, None, None))
        for number, (heard, view) in sorted(runner.nodes.items()):
            own = number == 0
            dead = runner.dead(now) if own else False
            found.append(_row(view, now - heard, dead, runner.over if own else None))
    return found


def _row(view: dict[str, Any], passed: float, dead: bool, over: dict[str, Any] | None) -> Row:
    status = view.get("status") or {}
    code = over["code"] if over is not None else status.get("exit_code")
    gone = dead or view.get("seen") == "silent"
    kind, word = _state(status, gone, code)
    starts = not status.get("started") and word in ("starting", "degraded")
    remaining = view.get("remaining")
    left = max(0.0, remaining - passed) if starts and remaining is not None else None
    up = status.get("uptime")
    return Row(
        clean(view.get("name") or "+".join(status.get("roles", ())) or "?"),
        clean(view.get("holds") or "+".join(status.get("roles", ()))),
        kind,
        word,
        clean(over["reason"] if over is not None else _doing(view, status)),
        _share(status, view.get("starts") or [], left) if starts else None,
        left,
        None if up is None else up + (0.0 if gone or over is not None else passed),
        None if gone else _flying(view, status),
        None if gone else view.get("tokens_per_second"),
    )


def _state(status: dict[str, Any], gone: bool, code: int | None) -> tuple[str, str]:
    if code is not None:
        return ("bad", "failed") if code else ("idle", "ended")
    if gone:
        return "bad", "dead" if status else "no answer"
    if any(process.get("stuck") for process in status.get("processes", ())):
        return "bad", "hung"
    known = {"ready": "good", "stopping": "idle", "degraded": "warn", "starting": "busy"}
    word = str(status.get("state", "unknown"))
    return known.get(word, "idle"), word


def _doing(view: dict[str, Any], status: dict[str, Any]) -> str:
    if not status:
        return str(view.get("why") or "")
    if view.get("seen") == "silent":
        return f"no answer: {view.get('why')}"
    processes = status.get("processes", ())
    for field in ("stuck", "progress"):
        for process in processes:
            if process.get(field) and not (field == "progress" and process["ready"]):
                return str(process[field])
    if status.get("ready"):
        return "answers requests"
    return str(status.get("reason") or next(iter(status.get("waiting_for") or ()), ""))


def _share(status: dict[str, Any], starts: Sequence[float], left: float | None) -> float | None:
    """By earlier starts; without any, by how many of its processes are ready."""
    if left is not None and starts:
        return 1 - left / max(1.0, statistics.median(starts), left)
    processes = status.get("processes", ())
    return sum(p["ready"] for p in processes) / len(processes) if len(processes) > 1 else None


def _flying(view: dict[str, Any], status: dict[str, Any]) -> float | None:
    """A frontend's own count, else those of the workers here."""
    if view.get("in_flight") is not None:
        return float(view["in_flight"])
    known = [
        p["requests_in_flight"]
        for p in status.get("processes", ())
        if p.get("requests_in_flight") is not None
    ]
    return float(sum(known)) if known else None


def findings(followed: Sequence[Followed], now: float) -> list[tuple[str, str, str]]:
    """(kind, nodes, text), the worst first; what several nodes say is said once. `now`: monotonic seconds."""
    nodes: dict[tuple[str, str], list[str]] = {}
    for runner in followed:
        for number, (_, view) in sorted(runner.nodes.items()):
            name = clean(view.get("name") or runner.url.removeprefix("http://"))
            if number == 0 and runner.dead(now):
                nodes.setdefault(("bad", f"nothing comes from its runner: {runner.why}"), []).append(name)
            for kind, text in _findings(view):
                nodes.setdefault((kind, clean(text)), []).append(name)
    order = [*SIGNS]
    found = sorted(nodes.items(), key=lambda item: -order.index(item[0][0]))
    return [(kind, _names(names), text) for (kind, text), names in found]


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} nodes"


def _findings(view: dict[str, Any]) -> Iterator[tuple[str, str]]:
    status = view.get("status") or {}
    if view.get("seen") == "silent":
        yield "bad", f"does not answer: {view.get('why')}"
    if status.get("behind"):
        yield "bad", str(status["behind"])
    for each in status.get("slow", ()):
        yield "warn", str(each["text"])
    if status.get("reason"):
        yield "bad" if status.get("exit_code") else "warn", str(status["reason"])
    for process in status.get("processes", ()):
        if process.get("stuck"):
            yield "bad", f"{process['name']}: {process['stuck']}"
        elif process.get("hangs"):
            yield "warn", f"{process['name']} was hung {process['hangs']} times"
        if process.get("restarts"):
            yield "warn", f"{process['name']} was restarted {process['restarts']} times"
        for finding in process.get("findings") or ():
            yield "warn", f"{process['name']}: {finding['text']}"
    for text in status.get("warnings", ()):
        yield "warn", str(text)
