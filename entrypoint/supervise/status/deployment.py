"""What a page shows of a whole deployment. Other nodes are asked only while somebody looks."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from entrypoint.plan.types import Peer, Plan
from entrypoint.supervise.status import client, told
from entrypoint.supervise.status.view import NodeView, silent

INTERVAL = 1.0
"""Seconds between two looks."""
TIMEOUT = 2.0
"""Seconds that a node's answer may take; with INTERVAL, one that is gone is shown so in less than 5."""
FAREWELL = 0.5
"""Seconds that a runner which ends waits for the pages that are open; none when there are none."""
ALL_EVERY = 10.0
"""Seconds between two events that hold all nodes, changed or not."""
THREADS = 16
"""Nodes asked at once."""
PASSING = ("uptime", "age", "at", "phase_seconds", "stuck_seconds", "remaining", "silent", "pace")
"""What passes by itself, and is counted on by the page or seen at the next event: it alone makes none."""


class Deployment:
    """The views of all nodes, made once a second for however many look, and not at all for nobody."""

    def __init__(self, plan: Plan, own: NodeView) -> None:
        self._others = plan.job.others if plan.job is not None else ()
        self._own, self._token = own, plan.status_token
        self._answered: dict[str, tuple[float, dict[str, Any]]] = {}
        self._changed = threading.Condition()
        self._watchers = 0
        self._over: dict[str, Any] | None = None
        self._turn = 0
        self._views: list[dict[str, Any]] = []

    def events(self) -> Generator[dict[str, Any], None, None]:
        """Endless: first all nodes, then once a second those that have changed."""
        with self._changed:
            self._watchers += 1
            if self._watchers == 1:
                self._turn += 1
                threading.Thread(target=self._look, args=(self._turn,), name="page", daemon=True).start()
        try:
            yield from self._follow()
        finally:
            with self._changed:
                self._watchers -= 1
                if not self._watchers:
                    self._views = []
                    self._changed.notify_all()

    def finish(self, code: int, reason: str) -> None:
        """Tell those who look how this runner ends, for FAREWELL seconds at most."""
        with self._changed:
            self._over = {"code": code, "reason": reason}
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._watchers, FAREWELL)

    def _follow(self) -> Iterator[dict[str, Any]]:
        shown: dict[int, str] = {}
        whole = 0.0
        seen: list[dict[str, Any]] | None = None
        while True:
            with self._changed:
                # An event each second tells the page that somebody is there, whatever a look takes.
                if self._over is None and (self._views is seen or not self._views):
                    self._changed.wait(INTERVAL)
                views, over = self._views, self._over
            if over is not None:
                yield {"at": time.time(), "over": over, "nodes": {0: self._own.make()}}
                return
            seen = views
            if not views:
                yield {"at": time.time(), "nodes": {}}
                continue
            now = time.monotonic()
            everything = now >= whole + ALL_EVERY
            whole = now if everything else whole
            fresh = {index: _lasting(view) for index, view in enumerate(views)}
            nodes = {i: views[i] for i, text in fresh.items() if everything or shown.get(i) != text}
            shown = fresh
            yield {"at": time.time(), "count": len(views), "nodes": nodes}

    def _look(self, turn: int) -> None:
        with ThreadPoolExecutor(max(1, min(THREADS, len(self._others))), thread_name_prefix="page") as pool:
            while True:
                began = time.monotonic()
                others = [pool.submit(self._ask, peer) for peer in self._others]
                views = [self._own.make(), *(other.result() for other in others)]
                with self._changed:
                    if not self._watchers or turn != self._turn:
                        return
                    self._views = views
                    self._changed.notify_all()
                time.sleep(max(0.0, began + INTERVAL - time.monotonic()))

    def _ask(self, peer: Peer) -> dict[str, Any]:
        named = {"name": peer.name, "holds": peer.what, "url": peer.url}
        try:
            code, answer = client.get(peer.url, "/view", TIMEOUT, self._token)
            why = (
                client.asks_for(self._token) if code == 401 else f"its health port answers {code} and no view"
            )
            view = told.view(answer)
        except OSError as error:
            code, why = 0, client.why(error)
        except ValueError:
            code = 0
        now = time.monotonic()
        if code == 200 and view["status"] is not None:
            self._answered[peer.name] = now, view
            return view | named
        when, last = self._answered.get(peer.name, (None, None))
        return silent(named, last, why, None if when is None else now - when) | named


def _lasting(view: dict[str, Any]) -> str:
    def kept(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: kept(v) for k, v in value.items() if k not in PASSING}
        return [kept(v) for v in value] if isinstance(value, list) else value

    return json.dumps(kept(view))
