"""Clients of an OpenAI API that look at what they get: tokens, seconds, and why there were none."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType

PATIENCE = 60.0
"""Seconds that a client waits for an answer."""


@dataclass(frozen=True)
class Reply:
    """What came of one request. Times are seconds; `began` is monotonic."""

    began: float
    seconds: float
    text: str = ""
    tokens: int = 0
    why: str = ""
    """Empty when tokens came; else a short reason."""

    @property
    def good(self) -> bool:
        """Whether it brought tokens."""
        return not self.why


def greedy(port: int, prompt: str, tokens: int, patience: float = PATIENCE) -> Reply:
    """One greedy completion of exactly `tokens` tokens. Never raises."""
    body = {
        "model": "glm-4.7",
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
    }
    began = time.monotonic()
    text, got, why = "", 0, ""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience)
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            why = f"HTTP {answer.status}"
        else:
            parsed = json.loads(data)
            got = (parsed.get("usage") or {}).get("completion_tokens") or 0
            text = parsed["choices"][0].get("text") or "" if parsed.get("choices") else ""
            why = "" if got else "200 without tokens"
    except TimeoutError:
        why = f"no answer in {patience:g} s"
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = type(error).__name__
    finally:
        connection.close()
    return Reply(began, round(time.monotonic() - began, 2), text, got, why)


def prompts() -> list[str]:
    """Ten prompts: short, long, and four that share a prefix."""
    rng = random.Random(47)

    def words(count: int) -> str:
        return " ".join(f"w{rng.randrange(400)}" for _ in range(count))

    shared = words(300)
    return [
        *(words(count) for count in (1, 5, 20, 60, 150, 400)),
        *(f"{shared} {words(10)}" for _ in range(4)),
    ]


@dataclass
class Clients:
    """`count` clients that ask one after another until the block ends."""

    port: int
    count: int
    tokens: int = 32
    replies: list[Reply] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Clients:
        self._threads = [
            threading.Thread(target=self._ask, args=(number,), daemon=True) for number in range(self.count)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _ask(self, number: int) -> None:
        rng = random.Random(number)
        while not self._over.is_set():
            prompt = " ".join(f"w{rng.randrange(400)}" for _ in range(20))
            self.replies.append(greedy(self.port, prompt, self.tokens))
            if not self.replies[-1].good:
                self._over.wait(0.2)
