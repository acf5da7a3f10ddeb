"""A small OpenAI-style server whose answers a test can bend."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
Send = Callable[["Handler"], None]


@dataclass
class Behaviour:
    """What the server says: a bent answer by (path, streamed), the good one otherwise."""

    model: str = "glm-4.7"
    bent: dict[tuple[str, bool], Send] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, Any], dict[str, str]]] = field(default_factory=list)


MODELS = "/v1/models"
TEXT = "/v1/completions"
CHAT = "/v1/chat/completions"


def good_models(model: str) -> dict[str, Any]:
    return {"object": "list", "data": [{"id": model, "object": "model"}]}


def good_whole(path: str, text: str = "The capital is Paris.") -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
    if path == CHAT:
        choice["message"] = {"role": "assistant", "content": text}
    else:
        choice["text"] = text
    kind = "chat.completion" if path == CHAT else "text_completion"
    return {"id": "1", "object": kind, "model": "m", "choices": [choice], "usage": USAGE}


def good_events(path: str, words: tuple[str, ...] = ("Pa", "ris", ".")) -> list[dict[str, Any]]:
    kind = "chat.completion.chunk" if path == CHAT else "text_completion"

    def event(text: str | None, reason: str | None) -> dict[str, Any]:
        said = {"delta": {"content": text}} if path == CHAT else {"text": text or ""}
        return {"id": "1", "object": kind, "choices": [{"index": 0, "finish_reason": reason, **said}]}

    last = {"id": "1", "object": kind, "choices": [], "usage": USAGE}
    return [*(event(word, None) for word in words), event(None, "stop"), last]


def sse(events: list[dict[str, Any]], done: bool = True) -> bytes:
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    return "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode()


def reply(body: bytes, kind: str = "application/json", status: int = 200, length: int | None = None) -> Send:
    """An answer of `body`; `length` is the announced one."""

    def send(handler: Handler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)

    return send


def reply_json(data: Any, status: int = 200) -> Send:
    return reply(json.dumps(data).encode(), status=status)


def reply_events(body: bytes, length: int | None = None) -> Send:
    return reply(body, "text/event-stream; charset=utf-8", length=length)


class Handler(BaseHTTPRequestHandler):
    behaviour: Behaviour

    def do_GET(self) -> None:
        self._answer(self.path, False)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.behaviour.requests.append((self.path, body, dict(self.headers)))
        self._answer(self.path, bool(body.get("stream")))

    def _answer(self, path: str, stream: bool) -> None:
        bent = self.behaviour.bent.get((path, stream))
        with contextlib.suppress(ConnectionError):
            if bent is not None:
                bent(self)
            elif path == MODELS:
                reply_json(good_models(self.behaviour.model))(self)
            elif stream:
                reply_events(sse(good_events(path)))(self)
            else:
                reply_json(good_whole(path))(self)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def serving(behaviour: Behaviour) -> Iterator[str]:
    """The URL of a server that behaves like that."""
    handler = type("BoundHandler", (Handler,), {"behaviour": behaviour})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
