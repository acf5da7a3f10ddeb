"""Clients that send streaming chat completions one after another, and keep account of every one."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import httpx


@dataclass(frozen=True)
class Request:
    """One request; times are monotonic seconds."""

    began: float
    ended: float
    failure: str | None


@dataclass
class Load:
    """`clients` clients against `url`, each asking for `tokens` tokens again and again."""

    url: str
    clients: int = 6
    tokens: int = 100
    timeout: float = 30.0
    requests: list[Request] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._client) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _client(self) -> None:
        with httpx.Client(timeout=self.timeout) as client:
            while not self._over.is_set():
                began = time.monotonic()
                try:
                    failure = self._ask(client)
                except httpx.HTTPError as error:
                    failure = repr(error)
                self.requests.append(Request(began, time.monotonic(), failure))

    def _ask(self, client: httpx.Client) -> str | None:
        body = {
            "model": "glm-4.7",
            "messages": [{"role": "user", "content": "Count."}],
            "max_tokens": self.tokens,
            "stream": True,
        }
        lines: list[str] = []
        with client.stream("POST", f"{self.url}/v1/chat/completions", json=body) as response:
            if response.status_code != 200:
                return f"{response.status_code}: {response.read()[:200]!r}"
            lines = [line for line in response.iter_lines() if line]
        if not lines or lines[-1] != "data: [DONE]":
            return f"ended after {len(lines)} lines: {lines[-1:]}"
        return None if '"finish_reason":"length"' in "".join(lines[-3:]) else f"cut short: {lines[-2]}"
