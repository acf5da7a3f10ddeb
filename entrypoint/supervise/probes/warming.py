"""Which workers have answered a request of ours, and which are to be asked next. Pure: times are given.

A first request takes long because of kernels that compile on first use and, with prefill workers, because of
the connection over which one of them sends KV caches to one decode worker (7 to 12 s on two H100s with NIXL).
So every pair of instances that the frontend lists is asked once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from entrypoint.supervise.probes.no_answer import Said, fault

TOKENS = 8
"""Asked for by each request: enough to see that an engine says one thing again and again."""
AT_ONCE = 8
"""Requests in flight at most."""
WAIT_FIRST, WAIT_MAX = 0.5, 60.0
"""Seconds after a request that failed, doubled for each further one: errors may come at once, and leave
log lines on both sides."""
PATIENCE_MAX = 300.0
"""Seconds that a request may take at most: the first ones may compile kernels, or hang for ever."""
TRIES = 3
"""Failures, or answers by other workers, after which a start does not wait for a pair while others work."""


class Pair(NamedTuple):
    """Who serves a request: instance ids of the prefill worker, if any, and of the one that answers."""

    prefill: int | None
    backend: int


@dataclass
class Warmth:
    """What is known of the pairs that the frontend lists."""

    patience: float
    """Seconds that a pair's first request may take; doubled for each further one."""
    settle: float = 0.0
    """Seconds between a worker's appearance and its first request."""
    met: set[Pair] = field(default_factory=set)
    why: str = ""
    """Why the last request failed that did."""
    _seen: dict[Pair, float] = field(default_factory=dict)
    _flying: dict[Pair, float] = field(default_factory=dict)
    _tries: dict[Pair, int] = field(default_factory=dict)
    _not_before: dict[Pair, float] = field(default_factory=dict)
    sent: int = 0

    def due(self, live: Iterable[Pair], now: float) -> list[Pair]:
        """Pairs to be asked now, those of idle workers first; each is to be told to `began`."""
        live = frozenset(live)
        for table in (self._seen, self._tries, self._not_before):
            for gone in table.keys() - live:
                del table[gone]
        self.met &= live
        ready = []
        for pair in sorted(live - self.met - self._flying.keys(), key=str):
            start = self._seen.setdefault(pair, now) + self.settle
            if now >= max(start, self._not_before.get(pair, 0.0)):
                ready.append(pair)
        return self._spread(ready, AT_ONCE - len(self._flying))

    def _spread(self, pairs: list[Pair], room: int) -> list[Pair]:
        """At most `room` of `pairs`, such that few share a worker: its connections are made one by one."""
        busy = Counter(worker for pair in self._flying for worker in pair)
        chosen: list[Pair] = []
        while pairs and len(chosen) < room:
            pair = min(
                pairs, key=lambda pair: busy[pair.prefill] * (pair.prefill is not None) + busy[pair.backend]
            )
            pairs.remove(pair)
            chosen.append(pair)
            busy.update(pair)
        return chosen

    def began(self, pair: Pair, now: float) -> float:
        """A request to `pair` is sent; the seconds that it may take."""
        self._flying[pair] = now
        self.sent += 1
        return float(min(self.patience * 2 ** min(self._tries.get(pair, 0), 10), PATIENCE_MAX))

    def answered(self, pair: Pair, served: Pair | None, now: float) -> tuple[Pair, float] | None:
        """Tokens came from `served`, `pair` itself where the release does not tell.

        The pair that is now warm, and the seconds since it was first to be asked; None when it was before.
        """
        self._flying.pop(pair, None)
        actual = served or pair
        if actual != pair:
            tries = self._tries[pair] = self._tries.get(pair, 0) + 1
            if tries > TRIES:
                self._not_before[pair] = now + _pause(tries - TRIES)
        if actual in self.met:
            return None
        self.met.add(actual)
        return actual, now - self._seen.get(actual, now) - self.settle

    def failed(self, pair: Pair, why: str, now: float) -> None:
        """No tokens came."""
        self._flying.pop(pair, None)
        tries = self._tries[pair] = self._tries.get(pair, 0) + 1
        self._not_before[pair] = now + _pause(tries)
        self.why = why

    def cold(self, live: Iterable[Pair]) -> list[Pair]:
        """Pairs that a start waits for: neither met nor given up."""
        live = frozenset(live)
        hopeless = {pair for pair, tries in self._tries.items() if tries >= TRIES}
        return sorted(live - self.met - (hopeless if self.met & live else set()), key=str)

    def describe(self, cold: int) -> str:
        """Why `cold` pairs keep the frontend from being ready."""
        count = f"its warm-up request {self.sent}" if self.sent else "its warm-up request"
        if self._flying or not self.why:
            return f"{count} is not answered yet" + (f" (the one before: {self.why})" if self.why else "")
        return f"{count} failed: {self.why}" + (f" ({cold} pairs of workers to go)" if cold > 1 else "")


def _pause(tries: int) -> float:
    return float(min(WAIT_FIRST * 2 ** min(tries - 1, 10), WAIT_MAX))


def body(model: str, pair: Pair, nonce: str) -> dict[str, Any]:
    """The request that meets `pair`, as far as the release lets one choose.

    0.8.1, 1.3.1 and 1.6.1 let one choose the prefill worker; the decode worker 1.6.1, and each with the KV
    router. 1.3.1 and 1.6.1, and each with the KV router, tell who served it. `nonce` keeps the KV router from
    preferring whoever has seen the prompt. Sampling with top_p on purpose: its kernels compile on first use,
    which takes up to 100 s.
    """
    nvext: dict[str, Any] = {"extra_fields": ["worker_id"]}
    if pair.prefill is not None:
        nvext |= {"prefill_worker_id": pair.prefill, "decode_worker_id": pair.backend}
    return {
        "model": model,
        "messages": [{"role": "user", "content": f"{nonce}: Hello"}],
        "max_tokens": TOKENS,
        "temperature": 0.7,
        "top_p": 0.9,
        "nvext": nvext,
    }


def served_by(answer: Mapping[str, Any], pair: Pair) -> Pair | None:
    """Who answered, where the answer tells."""
    told = answer.get("nvext")
    workers = told.get("worker_id") if isinstance(told, Mapping) else None
    if not isinstance(workers, Mapping):
        return None
    prefill, backend = workers.get("prefill_worker_id"), workers.get("decode_worker_id")
    if not isinstance(backend, int) or (pair.prefill is not None and not isinstance(prefill, int)):
        return None
    return Pair(None if pair.prefill is None else prefill, backend)


def lacks_tokens(answer: Any) -> str | None:
    """Why a chat completion that came with HTTP 200 is none; None when it brought tokens.

    The server's own count decides where it gives one: a token may well have no text, such as the one that
    opens a thought. Without a count, any text does, reasoning included.
    """
    if not isinstance(answer, Mapping):
        return "the answer is not a JSON object"
    if answer.get("error"):
        return f"the answer is an error: {str(answer['error'])[:200]}"
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        return "no tokens: the answer has no choices"
    usage = answer.get("usage")
    count = usage.get("completion_tokens") if isinstance(usage, Mapping) else None
    tokens = count if isinstance(count, int) and not isinstance(count, bool) else None
    message = choices[0].get("message")
    parts = message if isinstance(message, Mapping) else {}
    texts = {key: parts.get(key) for key in ("content", "reasoning_content", "reasoning")}
    content, *reasoning = (text if isinstance(text, str) else "" for text in texts.values())
    calls, finish = bool(parts.get("tool_calls")), choices[0].get("finish_reason")
    # Whether parsers take a thought out is for `smoke` to say: Dynamo before 1.0.0 has none, and serves.
    said = Said(content, "".join(reasoning), finish, tokens, TOKENS, calls, chat=False)
    if (why := fault(said)) is not None:
        return why
    if tokens or calls or any(texts.values()):
        return None
    return "no tokens: the message is empty, and nothing counts its tokens"
