"""Asks the runners of other nodes how they are; `lifecycle.peer_watch` decides what that means."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from entrypoint.plan.types import Peer
from entrypoint.supervise.lifecycle.peer_watch import Answer, Clock

INTERVAL = 1.0
"""Seconds between two questions to a peer."""
STOPPING_INTERVAL = 0.2
"""The same while this runner stops."""
TIMEOUT = 3.0
"""Seconds that an answer may take."""
LAST_LOOK = 1.0
"""How long a stop signal waits for a look at the peers: `srun` sends it to all when one task is gone."""
SECOND_LOOK = 0.4
"""Seconds until it looks again: by then a leader knows which of its followers is gone, and says so."""
THREADS = 16
"""Peers asked at once."""


class Poller:
    """Asks the peers in a thread of its own. `report` gets every answer and must be thread-safe."""

    def __init__(
        self, peers: Iterable[Peer], report: Callable[[Answer], None], token: str | None = None
    ) -> None:
        """`token`: what the peers' health endpoints ask for."""
        self._peers, self._token = tuple(peers), token
        self._report = report
        self._stopping = threading.Event()
        self._over = False
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="peer")

    def start(self) -> None:
        """Begin to ask; ends with the process or with `close`."""
        threading.Thread(target=self._run, name="peers", daemon=True).start()

    def stopping(self) -> None:
        """Ask all peers, and more often: what ends there is waited for here."""
        self._stopping.set()

    def close(self) -> None:
        """Ask no more."""
        self._over = True
        self._stopping.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def last_look(self, done: Callable[[list[Answer], bool], None]) -> None:
        """Ask the watched peers twice, LAST_LOOK seconds each at most; `done` gets the answers, and whether
        it was the second time."""

        def look() -> None:
            watched = [peer for peer in self._peers if peer.watched]
            with ThreadPoolExecutor(THREADS) as pool:
                done(list(pool.map(lambda peer: ask(peer, LAST_LOOK, self._token), watched)), not watched)
                if watched:
                    time.sleep(SECOND_LOOK)
                    done(list(pool.map(lambda peer: ask(peer, LAST_LOOK, self._token), watched)), True)

        threading.Thread(target=look, name="last-look", daemon=True).start()

    def _run(self) -> None:
        while not self._over:
            stopping = self._stopping.is_set()
            began = time.monotonic()
            try:
                asked = [p for p in self._peers if p.watched or stopping]
                for answer in self._pool.map(lambda peer: ask(peer, TIMEOUT, self._token), asked):
                    self._report(answer)
            except RuntimeError:  # closed in between
                return
            pause = max(0.05, began + (STOPPING_INTERVAL if stopping else INTERVAL) - time.monotonic())
            if stopping:
                time.sleep(pause)
            else:
                self._stopping.wait(pause)


def ask(peer: Peer, timeout: float = TIMEOUT, token: str | None = None) -> Answer:
    """Ask a peer's health endpoint for its status once, for `timeout` seconds."""
    from entrypoint.supervise.status import client

    began, asked_at = time.monotonic(), time.time()
    try:
        status = client.get_status(peer.url, timeout, token)
    except ConnectionRefusedError:
        return Answer(peer.name, refused=True, why="connection refused")
    except OSError as error:
        return Answer(peer.name, why=client.why(error))
    return Answer(peer.name, status, clock=_clock(status, asked_at, time.monotonic() - began))


def _clock(status: Mapping[str, Any], asked_at: float, round_trip: float) -> Clock | None:
    """What the time in a peer's answer says of its clock: it was taken about half way."""
    told = status["time"]
    return None if told is None else Clock(told - asked_at - round_trip / 2, round_trip)
