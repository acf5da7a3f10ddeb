"""Follows the events of runners' pages, one thread for each, and keeps what they said last."""

from __future__ import annotations

import http.client
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import Any

from entrypoint.base.foreign import from_json
from entrypoint.supervise.status import told
from entrypoint.supervise.status.client import asks_for, bearer

SILENCE = 3.0
"""Seconds without an event, of which one comes each second, after which a runner is called dead."""
PAUSE = 1.0
"""Seconds between two tries to reach a runner."""


@dataclass
class Followed:
    """What one runner has said; its times are monotonic seconds."""

    url: str
    nodes: dict[int, tuple[float, dict[str, Any]]] = field(default_factory=dict)
    """By number, when it was said and the node's view; 0 is the runner's own."""
    heard: float | None = None
    why: str = "no answer yet"
    """Why nothing comes."""
    over: dict[str, Any] | None = None
    """How it has ended, if it said so: code and reason."""

    def take(self, event: object, now: float) -> None:
        """An event that came at `now` (monotonic seconds). ValueError: it is none of a runner's."""
        said = told.event(event)
        self.heard, self.over = now, said["over"]
        if (count := said["count"]) is not None:
            self.nodes = {number: node for number, node in self.nodes.items() if number < count}
        self.nodes |= {number: (now, view) for number, view in said["nodes"].items()}

    def dead(self, now: float) -> bool:
        """Whether it has said nothing for too long at `now` (monotonic seconds), and not that it ends."""
        return self.over is None and (self.heard is None or now - self.heard > SILENCE)


class Follower:
    """Follows one runner until `close`, through its restarts."""

    def __init__(self, url: str, token: str | None) -> None:
        self.followed = Followed(url)
        self.lock = threading.Lock()
        self._token, self._closed = token, threading.Event()
        threading.Thread(target=self._run, name="follow", daemon=True).start()

    def close(self) -> None:
        """Follow it no more."""
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._listen()
            except (OSError, http.client.HTTPException, ValueError) as error:
                with self.lock:
                    self.followed.why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            self._closed.wait(PAUSE)

    def _listen(self) -> None:
        parts = urllib.parse.urlsplit(self.followed.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=SILENCE)
        try:
            connection.request("GET", "/events", headers=bearer(self._token))
            answer = connection.getresponse()
            if answer.status != 200:
                closed = answer.status == 401
                raise OSError(asks_for(self._token) if closed else f"it answers {answer.status}")
            while not self._closed.is_set() and (line := answer.readline()):
                if line.startswith(b"data: "):
                    event = from_json(line[6:])
                    with self.lock:
                        self.followed.take(event, time.monotonic())
            raise OSError("its connection was closed")
        finally:
            connection.close()
