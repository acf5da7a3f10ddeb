"""The terminal: one table over the whole screen, written anew without clearing it first."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from entrypoint.commands.status import duration
from entrypoint.commands.watch.judge import SIGNS, Row, findings, rows
from entrypoint.commands.watch.stream import Followed, Follower

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PERIOD = 0.5
"""Seconds between two pictures."""
COLOURS = {"good": "green", "busy": "blue", "warn": "yellow", "bad": "bold red", "idle": "bright_black"}
NARROW = 90
"""Columns below which a terminal has no room for what a node holds."""
BAR = 16
"""Characters of a progress bar."""


def watch(urls: Sequence[str], token: str | None) -> int:
    """Show the runners at `urls`, and the nodes that they tell of, until Ctrl-C; 0 if all are ready then."""
    from rich.console import Console
    from rich.live import Live

    followers = [Follower(url, token) for url in urls]
    console = Console()
    try:
        # The alternate screen: what was there comes back at the end.
        with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                live.update(picture(_copies(followers), time.monotonic(), console), refresh=True)
                time.sleep(PERIOD)
    except KeyboardInterrupt:
        seen = rows(_copies(followers), time.monotonic())
        return 0 if seen and all(row.word == "ready" for row in seen) else 1
    finally:
        for follower in followers:
            follower.close()


def _copies(followers: Sequence[Follower]) -> list[Followed]:
    from dataclasses import replace

    found = []
    for follower in followers:
        with follower.lock:
            found.append(replace(follower.followed, nodes=dict(follower.followed.nodes)))
    return found


def picture(followed: Sequence[Followed], now: float, console: Console) -> RenderableType:
    """Everything that fits the screen at `now` (monotonic seconds): the worst first where not all does."""
    from rich.console import Group
    from rich.text import Text

    seen, wrong = rows(followed, now), findings(followed, now)
    room = max(3, console.height - 5 - min(len(wrong), 6))
    shown = seen
    if len(seen) > room:
        order = [*SIGNS]
        shown = sorted(seen, key=lambda row: -order.index(row.kind))[: room - 1]
    lines: list[RenderableType] = [_head(seen), _table(shown, console.width)]
    if len(shown) < len(seen):
        lines.append(Text(f"and {len(seen) - len(shown)} more", style="bright_black"))
    for kind, names, text in wrong[:6]:
        line = Text(f"{SIGNS[kind]} {names}: {text}", style=COLOURS[kind], no_wrap=True, overflow="ellipsis")
        lines.append(line)
    return Group(*lines)


def _head(seen: Sequence[Row]) -> RenderableType:
    from rich.text import Text

    ready = sum(row.word == "ready" for row in seen)
    parts = [f"{ready} of {len(seen)} nodes ready"]
    starting = [row.left for row in seen if row.word == "starting"]
    known = [left for left in starting if left is not None]
    if known and len(known) == len(starting):
        parts.append(f"ready in about {duration(max(known))}")
    tokens = [row.tokens for row in seen if row.tokens is not None]
    if tokens:
        parts.append(f"{sum(tokens):,.0f} tokens a second")
    parts.append("Ctrl-C ends this")
    return Text(" · ".join(parts) + "\n", style="bold", no_wrap=True, overflow="ellipsis")


def _table(shown: Sequence[Row], width: int) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), expand=True, header_style="bright_black")
    wide = width >= NARROW
    for name in ("NODE", *(("HOLDS",) if wide else ()), "STATE"):
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    bars = width >= 110 and any(row.share is not None for row in shown)
    if bars:
        table.add_column("START", width=BAR + 5, no_wrap=True)
    table.add_column("LEFT", no_wrap=True, justify="right")
    table.add_column("FLYING", no_wrap=True, justify="right")
    table.add_column("UP", no_wrap=True, justify="right")
    table.add_column("DOING", ratio=1, no_wrap=True, overflow="ellipsis")
    for row in shown:
        state = Text(f"{SIGNS[row.kind]} {row.word}", style=COLOURS[row.kind])
        cells = [Text(row.name), *((Text(row.holds),) if wide else ()), state]
        if bars:
            cells.append(Text(_bar(row.share), style="blue"))
        flying = "" if row.in_flight is None else f"{row.in_flight:.0f}"
        cells += [Text(duration(row.left)), Text(flying), Text(duration(row.up)), Text(row.doing)]
        table.add_row(*cells)
    return table


def _bar(share: float | None) -> str:
    if share is None:
        return ""
    full = round(BAR * min(1.0, max(0.0, share)))
    return f"{'━' * full}{'╌' * (BAR - full)} {share:4.0%}"
