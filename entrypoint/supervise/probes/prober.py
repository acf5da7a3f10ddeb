"""Asks whether processes and servers are ready, in threads, and reports every answer.

A probe is asked often while the answer may come any moment and seldom while an engine loads for
20 minutes: a worker's own server writes an ERROR line for each 503 it gives (tower_http), so such a
worker is asked again when its log says it has registered, and every few seconds besides.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from entrypoint.plan.types import Announcements, Drain, Endpoint, Probe
from entrypoint.supervise.ports import taken_from
from entrypoint.supervise.probes.announced import Announced
from entrypoint.supervise.probes.asking import SilentError, UnreachableError, ask, in_flight
from entrypoint.supervise.probes.clients import Clients
from entrypoint.supervise.probes.frontend import judge_of

if TYPE_CHECKING:
    import httpx

    from entrypoint.supervise.discovery.listed import Listed

FIRST, FIRST_FOR = 0.02, 5.0
QUICK, QUICK_FOR = 0.05, 30.0
"""Seconds between questions at first, and for how long."""
STEADY, STEADY_FOR = 0.25, 300.0
SLOW = 1.0
"""Seconds between two questions to what has not answered for a while."""
LOADING = 5.0
"""Between questions to an engine that has answered 503: it is still loading."""
WATCH = 2.0
"""Between questions to what has been ready."""
RESTLESS = 0.5
"""Between questions to a frontend that lacks workers, or whose new workers have not answered yet."""
CLOSED = 1.0
"""Seconds after which a port that nobody listens on means that there is nothing left to wait for. A process
that was killed closes its ports before its end is seen: it must not pass for one that has answered all."""
SILENCES = 3
"""Questions without any answer before that means something: a container that was paused misses one."""
MISSES = 2
"""Failures in a row before something that was ready is called not ready."""


@dataclass(frozen=True)
class Answer:
    """What a probe found. `life` tells the lives of a restarted process apart."""

    name: str
    ready: bool
    why: str
    life: int = 0
    loading: bool = False
    """The server answered, and said that it is not ready yet."""
    news: tuple[str, ...] = ()
    """What else is worth a line."""
    hopeless: bool = False
    """Waiting longer will not help."""
    taken: bool = False
    """It was somebody else who answered, on a port of ours."""
    silent: float = 0.0
    """Seconds since it gave its last answer of any kind, where SILENCES questions in a row got none."""


@dataclass
class Asked:
    """How often something was asked whether it is ready, and for how long (seconds)."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """One question more, which took `seconds`."""
        self.count, self.seconds = self.count + 1, self.seconds + seconds


class Prober:
    """One thread per thing that is watched; answers go to `report`, which must be thread-safe."""

    def __init__(
        self,
        report: Callable[[Answer], None],
        announcements: Announcements | None = None,
        environ: Mapping[str, str] = MappingProxyType({}),
        endpoints: tuple[Endpoint, ...] = (),
        status_token: str | None = None,
    ) -> None:
        """`announcements`: of the prefill workers that a frontend needs; `environ` may hold ETCD_AUTH_*.

        `endpoints`: of all that is asked. Who answers on one must be a process of ours. `status_token`: what
        the runners beside a frontend's workers ask for.
        """
        self._endpoints = endpoints
        self._report = report
        self._watches: dict[str, _Watch] = {}
        self._clients = Clients(status_token)
        self._asked: dict[str, Asked] = {}
        self._announced: Announced | None = None
        if announcements is not None:
            self._announced = Announced(announcements, environ, partial(self._clients.get, None))

    def watch(
        self, name: str, probe: Probe, life: int = 0, loads: bool = False, listed: Listed | None = None
    ) -> None:
        """Start asking; an earlier watch of the same name ends. `loads`: an engine, slow to come up.

        `listed`: whether frontends can find what is ready.
        """
        self.forget(name)
        asked = self._asked.setdefault(name, Asked())
        own = [endpoint for endpoint in self._endpoints if endpoint.process == name]
        watch = _Watch(name, probe, life, loads, self._report, self._clients, self._announced, asked, own)
        watch.listed = listed
        self._watches[name] = watch
        watch.start()

    def drain(
        self, name: str, drain: Drain, done: Callable[[], None], first: Callable[[], None] | None = None
    ) -> None:
        """Do `first`, then call `done` once `name` has no request in flight; it is not probed any more."""
        self.forget(name)
        arguments = (drain, done, first)
        threading.Thread(target=self._drain, args=arguments, name=f"drain-{name}", daemon=True).start()

    def _drain(self, drain: Drain, done: Callable[[], None], first: Callable[[], None] | None = None) -> None:
        if first is not None:
            first()
        time.sleep(drain.delay)
        began = listened = time.monotonic()
        while (now := time.monotonic()) < began + drain.timeout:
            left = in_flight(drain, self._clients.get(None))
            if left is not None:
                listened = now
            if left == 0 or now - listened >= CLOSED:
                break
            time.sleep(QUICK)
        done()

    def asked(self) -> dict[str, dict[str, float]]:
        """For the status: questions so far by probe, and the seconds that their answers took."""
        return {name: {"count": a.count, "seconds": round(a.seconds, 3)} for name, a in self._asked.items()}

    def client(self) -> httpx.Client:
        """The client that asks servers of this container."""
        return self._clients.get(None)

    def nudge(self, name: str) -> None:
        """Ask `name` again at once: something says it may be ready."""
        if watch := self._watches.get(name):
            watch.event.set()

    def forget(self, name: str) -> None:
        """Stop asking `name`."""
        if watch := self._watches.pop(name, None):
            watch.over = True
            watch.event.set()

    def close(self) -> None:
        """Stop asking anything."""
        for name in list(self._watches):
            self.forget(name)


class _Watch(threading.Thread):
    def __init__(
        self,
        name: str,
        probe: Probe,
        life: int,
        loads: bool,
        report: Callable[[Answer], None],
        clients: Clients,
        announced: Announced | None,
        asked: Asked,
        endpoints: list[Endpoint],
    ) -> None:
        super().__init__(name=f"probe-{name}", daemon=True)
        self.what, self.probe, self.life, self.loads = name, probe, life, loads
        self.report, self.clients, self.asked = report, clients, asked
        self.endpoints = endpoints
        """Nobody has been ready on these yet."""
        self.event = threading.Event()
        self.over = False
        self.frontend = judge_of(probe, clients.get, self.event.set, announced)
        self.unreachable_since: float | None = None
        self.listed: Listed | None = None
        self.silence: list[float] = []
        """When questions were asked, the last ones, that got no answer at all."""

    def run(self) -> None:
        began = time.monotonic()
        while not (answer := self._ask_and_report()).ready and not self.over:
            self._sleep(self._pause(answer, time.monotonic() - began))
        misses = 0
        while not self.over:
            self._sleep(RESTLESS if self.frontend is not None and self.frontend.restless else WATCH)
            if self.over:
                return
            answer = self._ask()
            misses = 0 if answer.ready else misses + 1
            if misses == 0 or misses >= MISSES or answer.news:
                self._tell(answer if misses != 1 else replace(answer, ready=True, why=""))

    def _pause(self, answer: Answer, waited: float) -> float:
        if self.loads and answer.loading:
            return LOADING
        if self.frontend is not None and self.frontend.warmth.sent:
            return RESTLESS  # an answer to a warm-up request ends the pause
        if waited < FIRST_FOR:
            return FIRST
        return QUICK if waited < QUICK_FOR else STEADY if waited < STEADY_FOR else SLOW

    def _sleep(self, seconds: float) -> None:
        self.event.wait(seconds)
        if not self.over:
            self.event.clear()

    def _ask_and_report(self) -> Answer:
        answer = self._ask()
        self._tell(answer)
        return answer

    def _tell(self, answer: Answer) -> None:
        if not self.over:
            self.report(answer)

    def _ask(self) -> Answer:
        began = time.monotonic()
        try:
            answer = self._answer()
            self.silence = []
        except SilentError as error:
            self.silence.append(began)
            silent = time.monotonic() - self.silence[0] if len(self.silence) >= SILENCES else 0.0
            answer = Answer(self.what, False, str(error), self.life, silent=silent)
        self.asked.add(time.monotonic() - began)
        return answer

    def _answer(self) -> Answer:
        try:
            ready, why, loading = ask(self.probe, self.clients.get, self.frontend)
            if ready and self.listed is not None and (lost := self.listed.fault()) is not None:
                raise UnreachableError(lost, self.listed.patience)
            self.unreachable_since = None
        except UnreachableError as error:
            now = time.monotonic()
            self.unreachable_since = self.unreachable_since or now
            hopeless = now - self.unreachable_since >= error.patience
            return Answer(self.what, False, str(error), self.life, loading=True, hopeless=hopeless)
        except SilentError:
            raise
        except Exception as error:  # a probe that breaks is an answer too: never a dead thread
            ready, why, loading = False, f"probe failed: {error!r}", False
        if ready and self.endpoints:
            if taken := taken_from(self.endpoints):
                return Answer(self.what, False, taken, self.life, taken=True)
            self.endpoints = []
        news = self.frontend.news() if self.frontend is not None else ()
        return Answer(self.what, ready, why, self.life, loading, news)
