"""What the watching terminal makes of views, and how a picture fits its screen."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from entrypoint.commands.watch.command import picture
from entrypoint.commands.watch.judge import findings, rows
from entrypoint.commands.watch.stream import SILENCE, Followed


def process(name: str = "decode", **fields: Any) -> dict[str, Any]:
    made = {"name": name, "ready": True, "state": "running", "stuck": None, "progress": None, "hangs": 0,
            "restarts": 0, "requests_in_flight": None}  # fmt: skip
    return {**made, **fields}


def view(name: str = "n1", *processes: dict[str, Any], **fields: Any) -> dict[str, Any]:
    status = {"state": "ready", "ready": True, "started": True, "uptime": 100.0, "reason": None,
              "exit_code": None, "roles": ["decode"], "processes": list(processes or [process()]),
              "warnings": [], "waiting_for": []}  # fmt: skip
    top = {key: fields.pop(key) for key in [*fields] if key not in status}
    return {"name": name, "holds": "decode worker 0 rank 0", "seen": "answers", "status": status | fields,
            "starts": [], "remaining": None, "in_flight": None, "tokens_per_second": None, **top}  # fmt: skip


def told(*views: dict[str, Any], heard: float = 10.0) -> Followed:
    followed = Followed("http://n1:9480")
    followed.take({"count": len(views), "nodes": {str(n): v for n, v in enumerate(views)}}, heard)
    return followed


STARTING: dict[str, Any] = {"state": "starting", "ready": False, "started": False}
STATES: list[tuple[dict[str, Any], tuple[str, str]]] = [
    (view(), ("good", "ready")),
    (view(**STARTING), ("busy", "starting")),
    (view(state="stopping", ready=False), ("idle", "stopping")),
    (view(state="degraded", ready=False), ("warn", "degraded")),
    (view("n1", process(stuck="it stands", ready=False), state="degraded", ready=False), ("bad", "hung")),
    (view(exit_code=75, reason="it hangs"), ("bad", "failed")),
    (view(exit_code=0, reason="asked to stop"), ("idle", "ended")),
    (view(seen="silent", why="refused"), ("bad", "dead")),
    (view() | {"seen": "silent", "status": None, "why": "refused"}, ("bad", "no answer")),
    (view(state="held", ready=False), ("idle", "held")),
]


@pytest.mark.parametrize(("seen", "expected"), STATES)
def test_each_state_has_its_word(seen: dict[str, Any], expected: tuple[str, str]) -> None:
    row = rows([told(view("head"), seen)], 10.0)[1]
    assert (row.kind, row.word) == expected


def test_a_runner_that_says_nothing_is_dead_after_three_seconds() -> None:
    followed = told(view())
    assert rows([followed], 10.0 + SILENCE)[0].word == "ready"
    assert rows([followed], 10.1 + SILENCE)[0].word == "dead"
    assert findings([followed], 14.0)[0][:2] == ("bad", "n1")
    followed.take({"over": {"code": 0, "reason": "asked to stop"}, "nodes": {}}, 11.0)
    row = rows([followed], 99.0)[0]
    assert (row.word, row.doing, row.up) == ("ended", "asked to stop", 100.0)


def test_one_that_never_answered() -> None:
    row = rows([Followed("http://n9:9480", why="refused")], 0.0)[0]
    assert (row.name, row.word, row.doing) == ("n9:9480", "no answer", "refused")


def test_nodes_that_are_gone_from_a_deployment_go() -> None:
    followed = told(view("n1"), view("n2"))
    followed.take({"count": 1, "nodes": {}}, 11.0)
    assert [row.name for row in rows([followed], 11.0)] == ["n1"]


def test_time_passes_between_events() -> None:
    row = rows([told(view(**STARTING, remaining=60.0, starts=[100.0]))], 12.0)[0]
    assert (row.left, row.up) == (58.0, 102.0) and row.share == pytest.approx(0.42)
    late = rows([told(view(**STARTING, remaining=1.0, starts=[100.0]))], 12.0)[0]
    assert (late.left, late.share) == (0.0, 1.0)


def test_what_several_say_is_said_once() -> None:
    many = [view(f"n{n}", warnings=["names are guessed"]) for n in range(5)]
    hung = view("n7", process(stuck="it stands", ready=False))
    found = findings([told(*many, hung)], 10.0)
    assert found == [("bad", "n7", "decode: it stands"), ("warn", "5 nodes", "names are guessed")]


def test_the_rank_that_is_behind_is_named() -> None:
    line = "rank 13 of 24 stands in all_reduce"
    seen = view()
    seen["status"]["behind"] = line
    assert findings([told(seen)], 10.0) == [("bad", "n1", line)]


def test_a_node_that_is_slow_is_named() -> None:
    seen = view()
    seen["status"]["slow"] = [{"process": "decode", "step": "weights", "node": "n4", "text": "n4 is slow"}]
    assert findings([told(seen)], 10.0) == [("warn", "n1", "n4 is slow")]


def shown(followed: Followed, width: int, height: int) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, force_terminal=True, color_system=None)
    console.print(picture([followed], 10.0, console))
    return out.getvalue().rstrip("\n").split("\n")


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (200, 50), (60, 12)])
def test_it_fits_the_screen_and_the_bad_one_is_on_it(width: int, height: int) -> None:
    views = [view(f"nvl72d{n:03}", holds=f"decode worker {n // 4} rank {n % 4}") for n in range(1, 25)]
    views[20] = view("nvl72d021", process(stuck="it has 12 requests and answers none " * 5, ready=False))
    lines = shown(told(*views), width, height)
    assert len(lines) <= height and all(len(line) <= width for line in lines)
    assert any("nvl72d021" in line and "✖ hung" in line for line in lines)
    assert "23 of 24 nodes ready" in lines[0]


def test_bars_and_figures() -> None:
    starting = view("n1", process(ready=False, progress="loading weights 17/41"), **STARTING, remaining=60.0,
                    starts=[100.0])  # fmt: skip
    text = "\n".join(shown(told(starting, view("n2", tokens_per_second=1234.5, in_flight=7.0)), 140, 20))
    assert "━━━━━━╌╌╌╌╌╌╌╌╌╌  40%" in text and "loading weights 17/41" in text
    assert "ready in about 1m00s" in text and "1,234 tokens a second" in text


def test_nothing_in_a_view_commands_the_terminal() -> None:
    evil = "\x1b[2J\x1b]0;owned\x07\r\n[bold red]text\x9b31m"
    lines = "\n".join(shown(told(view(evil, warnings=[evil], holds=evil, reason=evil)), 200, 20))
    assert "\x1b[2J" not in lines and "\x07" not in lines and "\x9b" not in lines
    assert "[bold red]text" in lines
