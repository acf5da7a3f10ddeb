"""Clients of the tests: streamed answers, and a load of short ones."""

from __future__ import annotations

import http.client
import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.runner import until

ANSWER = 120.0
"""Seconds that an answer of 1,000 tokens may take: 7 on two free cores."""


class Stream(threading.Thread):
    """One streamed answer of `tokens`. `wrong` says what was wrong with it, if anything, once it is over."""

    def __init__(self, url: str, tokens: int, prompt: str = " w001 w002 w003") -> None:
        super().__init__(daemon=True)
        self._url, self._tokens, self._prompt = url, tokens, prompt
        self.began, self.wrong = threading.Event(), ""
        self._told = 0
        self.start()

    def run(self) -> None:
        body = {
            "model": "glm-4.7",
            "messages": [{"role": "user", "content": self._prompt}],
            "max_tokens": self._tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(
            f"{self._url}/v1/chat/completions", json.dumps(body).encode(), headers
        )
        wrong = ""
        try:
            with urllib.request.urlopen(request, timeout=ANSWER) as answer:
                for line in answer:
                    wrong = wrong or self._take(line.decode())
        except (OSError, http.client.HTTPException) as error:
            wrong = repr(error)
        if not wrong and self._told != self._tokens:
            wrong = f"{self._told} of {self._tokens} tokens"
        self.wrong = wrong

    def _take(self, line: str) -> str:
        """What is wrong with a line of the answer."""
        if not line.startswith("data: {"):
            return "" if line.strip() in ("", "data: [DONE]") else line
        self.began.set()
        data = json.loads(line[6:])
        if data.get("usage"):
            self._told = data["usage"]["completion_tokens"]
        return ""

    def under_way(self) -> Stream:
        """Itself, once its first token is there."""
        until(lambda: self.began.is_set() or not self.is_alive(), "a first token", ANSWER)
        assert self.is_alive(), f"over at once: {self.wrong}"
        return self

    def ended(self) -> str:
        """What was wrong with it, once it is over."""
        self.join(ANSWER)
        assert not self.is_alive(), "the answer goes on for ever"
        return self.wrong


class Load:
    """Short requests, two at a time."""

    def __init__(self, url: str) -> None:
        self._url, self._over = url, threading.Event()
        self.done: list[str] = []
        """What was wrong with each."""

    def _ask(self, number: int) -> None:
        while not self._over.is_set():
            self.done.append(Stream(self._url, 4, f" w{number:03} w{len(self.done) % 300:03}").ended())

    @contextmanager
    def going(self) -> Iterator[None]:
        """For as long as this is entered."""
        threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()
