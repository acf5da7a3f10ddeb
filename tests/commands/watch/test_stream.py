"""A page's stream of events as `status --watch` reads it: of a runner, and of something else."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from entrypoint.commands.watch.judge import findings, rows
from entrypoint.commands.watch.stream import Followed, Follower
from entrypoint.supervise.status import told
from tests.support.runner import free_port, until

STATUS: dict[str, Any] = {"state": "ready", "ready": True, "processes": []}
EVENT: dict[str, Any] = {"nodes": {"0": {"name": "n0", "status": STATUS}}, "count": 1}

NO_EVENTS: dict[str, object] = {
    "a list": [],
    "a text": "x",
    "null": None,
    "no nodes": {},
    "nodes in a list": {"nodes": [STATUS]},
    "a node without a number": {"nodes": {"head": {"status": STATUS}}},
    "a node that is a text": {"nodes": {"0": "x"}},
    "a status that is none": {"nodes": {"0": {"status": {"state": 1}}}},
    "a process that is none": {"nodes": {"0": {"status": STATUS | {"processes": [1]}}}},
}


@pytest.mark.parametrize("event", NO_EVENTS.values(), ids=NO_EVENTS)
def test_what_is_no_event_is_refused_and_changes_nothing(event: object) -> None:
    followed = Followed("http://n0:9480")
    followed.take(EVENT, 1.0)
    with pytest.raises(ValueError):
        followed.take(event, 2.0)
    assert (followed.heard, list(followed.nodes)) == (1.0, [0])


ODD: dict[str, dict[str, Any]] = {
    "a view without anything": {"nodes": {"0": {}}},
    "a count that is a word": {"nodes": {}, "count": "2"},
    "an end without a code": {"nodes": {}, "over": {}},
    "an end that is a word": {"nodes": {}, "over": "now"},
    "an end with another kind of code": {"nodes": {}, "over": {"code": "75", "reason": 5}},
    "figures that are words": {"nodes": {"0": {"in_flight": "3", "tokens_per_second": {}, "remaining": "x"}}},
    "starts that are words": {"nodes": {"0": {"starts": ["x"], "remaining": 3, "status": STATUS}}},
    "names that are numbers": {"nodes": {"0": {"name": 5, "holds": 6, "seen": 7, "status": STATUS}}},
    "no numbers": {"nodes": {"0": {"remaining": float("nan"), "in_flight": float("inf"), "status": STATUS}}},
}


@pytest.mark.parametrize("event", ODD.values(), ids=ODD)
def test_what_is_of_another_kind_counts_as_not_said(event: dict[str, Any]) -> None:
    followed = Followed("http://n0:9480")
    followed.take(EVENT, 1.0)
    followed.take(event, 2.0)
    row = rows([followed], 2.5)[0]
    assert (row.in_flight, row.tokens, row.left) == (None, None, None)
    assert row.word in ("ready", "unknown", "ended")
    findings([followed], 2.5)


def test_nodes_that_are_not_there_any_more_go() -> None:
    followed = Followed("http://n0:9480")
    followed.take({"nodes": {str(n): {"status": STATUS} for n in range(4)}, "count": 4}, 1.0)
    followed.take({"nodes": {}, "count": 2}, 2.0)
    assert list(followed.nodes) == [0, 1]


def test_a_view_that_is_whole_is_kept_as_it_is() -> None:
    view = told.view({"name": "n0", "status": STATUS, "of a later release": {"a": 1}})
    assert told.view(view) == view and view["of a later release"] == {"a": 1}


@contextmanager
def stream(*events: object, code: int = 200) -> Iterator[str]:
    """Sends `events` to whoever asks, and keeps the connection; gives its URL."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.end_headers()
            for event in events:
                text = event if isinstance(event, bytes) else json.dumps(event).encode()
                self.wfile.write(b"data: " + text + b"\n\n")
            over.wait(20)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}"
        finally:
            over.set()
            httpd.shutdown()


@contextmanager
def following(url: str) -> Iterator[Followed]:
    follower = Follower(url, None)
    try:
        yield follower.followed
    finally:
        follower.close()


def test_a_runner_is_followed() -> None:
    with stream(EVENT) as url, following(url) as followed:
        until(lambda: followed.nodes, "an event came")
        assert rows([followed], followed.heard or 0.0)[0].name == "n0"


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"no json", "Expecting value"),
        (b"[" * 500, "Expecting value"),
        ([], "no event of a runner"),
        ({"nodes": {"0": {"status": {"state": 1}}}}, "no status of a runner"),
    ],
)
def test_why_nothing_comes_of_something_else(sent: object, why: str) -> None:
    with stream(sent) as url, following(url) as followed:
        until(lambda: why in followed.why, f"{why} is said")
        assert rows([followed], 1.0)[0].word == "no answer"


@pytest.mark.parametrize(("code", "why"), [(401, "it asks for a token"), (404, "it answers 404")])
def test_why_nothing_comes_of_one_that_does_not_answer(code: int, why: str) -> None:
    with stream(code=code) as url, following(url) as followed:
        until(lambda: why in followed.why, f"{why} is said")


def test_why_nothing_comes_of_nobody() -> None:
    with following(f"http://127.0.0.1:{free_port()}") as followed:
        until(lambda: "refused" in followed.why, "it is said")
