"""A stand-in for Dynamo's frontend, for tests only: it lists workers and answers as it is told to.

It has no model. `answer` gets the parsed chat request and gives (status, body); None: hang until closed.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from entrypoint.supervise.probes.warming import TOKENS


def tokens(text: str = "Hi", **fields: Any) -> dict[str, Any]:
    """A good chat completion; `fields` replace its own."""
    message = {"role": "assistant", "content": text}
    return {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": TOKENS, "total_tokens": 5 + TOKENS},
    } | fields


@dataclass
class Frontend:
    """What it lists and says; change it at any time."""

    workers: dict[str, list[int]] = field(default_factory=lambda: {"backend": [1]})
    model: str = "glm-4.7"
    answer: Callable[[dict[str, Any]], tuple[int, Any] | None] = lambda request: (200, tokens())
    asked: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    closing: threading.Event = field(default_factory=threading.Event)
    listed: bool = True
    """Whether /v1/models has the model when there are workers."""


@contextmanager
def serving(frontend: Frontend) -> Iterator[Frontend]:
    """`frontend` on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            instances = [
                {"component": component, "endpoint": "generate", "instance_id": number}
                for component, numbers in frontend.workers.items()
                for number in numbers
            ]
            models = [{"id": frontend.model}] if instances and frontend.listed else []
            self.reply(200, {"instances": instances} if self.path == "/health" else {"data": models})

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            frontend.asked.append(request)
            answer = frontend.answer(request)
            if answer is None:
                frontend.closing.wait(60)
            else:
                self.reply(*answer)

        def reply(self, status: int, body: Any) -> None:
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that gave up."""

    server = Server(("127.0.0.1", 0), Handler)
    frontend.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield frontend
    finally:
        frontend.closing.set()
        server.shutdown()
        server.server_close()
