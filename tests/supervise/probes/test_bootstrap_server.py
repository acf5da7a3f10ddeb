"""A prefill worker is ready when decode workers would find all of its ranks, and ends when they never will.

The servers here answer as SGLang's do, in both spellings; tests/engine asks real ones.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from entrypoint.plan.types import PrefillProbe
from entrypoint.supervise.probes.bootstrap_server import fault
from tests.support.plans import plan, process
from tests.support.runner import Runner, free_port, until

Answer = tuple[int, str]
Serve = Callable[[Callable[[dict[str, int]], Answer]], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server of `/route` (and `/health`); its URL."""
    servers: list[ThreadingHTTPServer] = []

    def start(route: Callable[[dict[str, int]], Answer]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                asked = {name: int(value) for name, value in parse_qsl(parts.query)}
                code, text = (200, "OK") if parts.path == "/health" else route(asked)
                self.send_response(code)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def old(registered: set[tuple[int, int, int]], dp: int | None, tp: int | None) -> Callable[..., Answer]:
    """SGLang up to 0.5.9: the layout as soon as one rank is known, 500 for one that is not."""

    def route(asked: dict[str, int]) -> Answer:
        rank = asked["target_dp_group"], asked["engine_rank"], asked["target_pp_rank"]
        if rank == (-1, -1, -1):
            pp = None if tp is None else 1
            layout = {"prefill_attn_tp_size": tp, "prefill_dp_size": dp, "prefill_pp_size": pp}
            return 200, json.dumps(layout)
        return (200, "{}") if rank in registered else (500, "Internal Server Error")

    return route


def new(registered: int, ranks: int) -> Callable[..., Answer]:
    """SGLang from 0.5.10: 503 until all ranks are known."""

    def route(asked: dict[str, int]) -> Answer:
        names = ("prefill_dp_rank", "prefill_cp_rank", "target_tp_rank", "target_pp_rank")
        if any(asked.get(name) != -1 for name in names):
            return 400, "Missing inputs for bootstrap server."
        if registered < ranks:
            return 503, f"Prefill server not fully registered yet ({registered} workers registered)."
        return 200, json.dumps({"attn_tp_size": ranks, "attn_cp_size": 1, "dp_size": 1, "pp_size": 1})

    return route


ALL = {(dp, tp, 0) for dp in range(2) for tp in range(2)}


@pytest.mark.parametrize(
    ("route", "said"),
    [
        (old({(0, 0, 0), (0, 1, 0)}, 1, 2), None),
        (old(ALL, 2, 2), None),
        (old(set(), None, None), "knows no rank of its worker"),
        (old({(0, 0, 0)}, 1, 2), "does not know its worker's rank DP 0 TP 1 PP 0"),
        (
            old(ALL - {(1, 0, 0), (1, 1, 0)}, 2, 2),
            "does not know its worker's ranks DP 1 TP 0 PP 0, DP 1 TP 1 PP 0",
        ),
        (new(8, 8), None),
        (new(7, 8), "answers 503: Prefill server not fully registered yet (7 workers registered)."),
        (lambda asked: (200, "<html>"), "cannot be asked: Expecting value: line 1 column 1 (char 0)"),
        (lambda asked: (200, "[]"), "knows no rank of its worker"),
        (lambda asked: (404, "no such page"), "answers 404: no such page"),
    ],
)  # fmt: skip
def test_what_the_server_knows(serve: Serve, route: Callable[..., Answer], said: str | None) -> None:
    url = serve(route)
    with httpx.Client() as client:
        assert fault(url, client) == said


def test_nobody_listens_there() -> None:
    with httpx.Client() as client:
        said = fault(f"http://127.0.0.1:{free_port()}", client)
    assert said is not None and said.startswith("cannot be connected to: ")


def test_a_worker_that_nobody_can_find_ends_with_69(serve: Serve, tmp_path: Path) -> None:
    healthy, bootstrap = serve(new(1, 1)), f"http://127.0.0.1:{free_port()}"
    probe = PrefillProbe(f"{healthy}/health", bootstrap, "GLM47_INTERFACE", patience=0.5)
    with Runner.of_plan(plan(process("prefill", ready=probe)), tmp_path) as runner:
        assert runner.wait() == 69
    assert not any("is ready" in line for line in runner.lines)
    (line,) = (line for line in runner.lines if "stopping: " in line)
    start = (
        "stopping: prefill serves nobody: its bootstrap server, announced to decode workers at "
        f"{bootstrap}, cannot be connected to: "
    )
    assert start in line and line.endswith(": correct GLM47_INTERFACE")


def test_a_rank_that_registers_late_is_waited_for(serve: Serve, tmp_path: Path) -> None:
    known = {(0, 0, 0)}
    url = serve(old(known, 1, 2))
    probe = PrefillProbe(f"{url}/health", url, "GLM47_INTERFACE")
    with Runner.of_plan(plan(process("prefill", ready=probe)), tmp_path) as runner:
        until(lambda: "TP 1" in str(runner.get("/readyz")[1]), "not ready, and why")
        known.add((0, 1, 0))
        until(lambda: runner.get("/readyz")[0] == 200, "ready")
