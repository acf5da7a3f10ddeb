"""Requests that keep coming: what was asked, what failed, and when."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx


@dataclass(frozen=True)
class Asked:
    """One chat completion."""

    began: float
    seconds: float
    error: str
    """Empty: answered with text."""


@dataclass
class Load:
    """The requests so far, in the order of their ends."""

    asked: list[Asked] = field(default_factory=list)

    @property
    def failed(self) -> list[Asked]:
        return [a for a in list(self.asked) if a.error]

    def answered_since(self, moment: float) -> int:
        return sum(not a.error and a.began >= moment for a in list(self.asked))

    def outage(self) -> float:
        """Seconds from the first failed request's start to the last one's end; 0 without any."""
        failed = self.failed
        return max(a.began + a.seconds for a in failed) - min(a.began for a in failed) if failed else 0.0

    def summary(self) -> str:
        kinds: dict[str, int] = {}
        for a in self.failed:
            kinds[a.error] = kinds.get(a.error, 0) + 1
        return f"{len(self.asked)} asked, {len(self.failed)} failed over {self.outage():.1f} s: {kinds}"


@contextmanager
def load(
    url: str, clients: int = 4, tokens: int = 32, keep: bool = False, timeout: float = 20
) -> Iterator[Load]:
    """`clients` ask one request after another; `keep`: over one connection each, else a new one each time."""
    result, stop = Load(), threading.Event()
    threads = [
        threading.Thread(target=_client, args=(url, tokens, keep, timeout, result, stop), daemon=True)
        for _ in range(clients)
    ]
    for thread in threads:
        thread.start()
    try:
        yield result
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout + 5)


def _client(url: str, tokens: int, keep: bool, timeout: float, result: Load, stop: threading.Event) -> None:
    body = {
        "model": "glm-4.7",
        "messages": [{"role": "user", "content": "Say something."}],
        "max_tokens": tokens,
    }
    limits = httpx.Limits(max_keepalive_connections=1 if keep else 0)
    # The machine's proxy settings are not for the pods; making the TLS context is most of a client's cost.
    with httpx.Client(base_url=url, timeout=timeout, limits=limits, trust_env=False, verify=False) as client:
        while not stop.is_set():
            began, error = time.monotonic(), ""
            try:
                response = client.post("/v1/chat/completions", json=body)
                if response.status_code != 200:
                    error = f"HTTP {response.status_code}"
                elif not response.json()["choices"][0]["message"]["content"]:
                    error = "no text"
            except httpx.HTTPError as problem:
                error = type(problem).__name__
            result.asked.append(Asked(began, time.monotonic() - began, error))
            if error:
                stop.wait(0.1)
