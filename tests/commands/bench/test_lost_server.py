"""When a server counts as lost: told from one that is busy, or that refuses some requests."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from entrypoint.commands.bench import server as server_module
from entrypoint.commands.bench.display import Display
from entrypoint.commands.bench.server import NotServing, Server
from entrypoint.commands.bench.session import Options, Session
from entrypoint.commands.bench.suite import load_suite
from tests.commands.bench.test_results import REFUSED, record, write

LIST = {"object": "list", "data": [{"id": "glm-4.7", "object": "model"}]}


class Frontend(ThreadingHTTPServer):
    """A stand-in for a frontend: `answer` gives code and body of a question, `listed` the list of models."""

    daemon_threads = True
    listed: dict[str, Any] = LIST
    answer: Callable[[], tuple[int, dict[str, Any]]]
    questions = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Frontend

    def do_GET(self) -> None:
        self._answer(200, self.server.listed)

    def do_POST(self) -> None:
        self.server.questions += 1
        self._answer(*self.server.answer())

    def _answer(self, code: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def frontend() -> Iterator[Frontend]:
    with Frontend(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


class Ended:
    """Stands in for an AIPerf that is through with its requests."""

    def wait(self, timeout: float) -> bool:
        return True

    def poll(self) -> int:
        return 1


def watch(frontend: Frontend, artifacts: Path) -> tuple[str, str | None]:
    suite = load_suite("quick")
    options = Options(suite, frontend.url, "glm-4.7", None, "/m", artifacts)
    session = Session(options, Display(io.StringIO()))
    return session._watch(Ended(), Server(frontend.url, None), suite.tests[0], artifacts)  # type: ignore[arg-type]


def broken() -> tuple[int, dict[str, Any]]:
    return 500, {"error": {"message": "no worker"}}


def test_a_listed_model_that_answers_with_errors_is_lost(frontend: Frontend, tmp_path: Path) -> None:
    frontend.answer = broken
    write(tmp_path, record(0, 1, 40), record(1, 1, 0, error=REFUSED))
    state, why = watch(frontend, tmp_path)
    assert state == "server lost" and why is not None and "HTTP 500" in why and "no worker" in why
    assert frontend.questions == 3


def test_a_server_that_answers_is_not_lost(frontend: Frontend, tmp_path: Path) -> None:
    frontend.answer = lambda: (200, {})
    write(tmp_path, record(0, 1, 40), record(1, 1, 0, error=REFUSED))
    assert watch(frontend, tmp_path) == ("complete", None)
    assert frontend.questions == 1


def test_a_run_that_ends_with_an_answer_asks_nothing(frontend: Frontend, tmp_path: Path) -> None:
    frontend.answer = broken
    write(tmp_path, record(1, 1, 0, error=REFUSED), record(0, 1, 40))
    assert watch(frontend, tmp_path) == ("complete", None)
    assert frontend.questions == 0


def test_a_busy_server_is_not_lost(frontend: Frontend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "TIMEOUT", 0.2)

    def late() -> tuple[int, dict[str, Any]]:
        time.sleep(1)
        return 200, {}

    frontend.answer = late
    asked = Server(frontend.url, None)
    asked.require_answer("glm-4.7")
    frontend.listed = {"object": "list", "data": []}
    with pytest.raises(NotServing, match="it lists no model"):
        asked.require_answer("glm-4.7")
