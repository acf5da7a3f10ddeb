"""Whether a frontend is ready: enough workers, the model listed, and tokens from requests of our own.

At the start every pair of workers must have answered. Later the frontend stays ready as long as one pair that
has answered is there: a worker that was replaced or added is asked at once, beside the clients, and what that
took is said.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from entrypoint.plan.types import FrontendProbe
from entrypoint.supervise.probes.announced import Announced
from entrypoint.supervise.probes.asking import View, lacks, request_tokens
from entrypoint.supervise.probes.layouts import Layouts
from entrypoint.supervise.probes.runners import Runners
from entrypoint.supervise.probes.warming import Pair, Warmth

if TYPE_CHECKING:
    import httpx

PAIR_HINT = (
    "with prefill workers the usual cause is that decode cannot reach prefill's bootstrap server: see "
    "decode's log, and GLM47_INTERFACE, whose address prefill announces"
)


HALF_SEEN = ("Prefill router not", "bootstrap_info is required")
"""In a frontend's answers: with `--enforce-disagg`, and from a decode worker without it."""


class FrontendHealth:
    """The judge of one frontend's life. Called from one thread; `wake` ends that thread's pause."""

    def __init__(
        self,
        probe: FrontendProbe,
        client: Callable[[], httpx.Client],
        wake: Callable[[], None],
        announced: Announced | None = None,
    ) -> None:
        """`announced`: the bootstrap servers that must be found before the first request; None: none."""
        self.probe, self._client, self._wake, self._announced = probe, client, wake, announced
        self.warmth = Warmth(probe.patience, probe.settle)
        self._runners = Runners(probe, client)
        self._layouts = Layouts(probe, client)
        self.was_ready = False
        self.restless = False
        """Workers are missing, or have not answered yet: worth another look soon."""
        self._said: list[str] = []
        self._known: frozenset[tuple[str, int]] = frozenset()
        self._ended: deque[tuple[Pair, Pair | None, str | None]] = deque()

    def __call__(self, view: View) -> tuple[bool, str, bool]:
        """(ready, why not, the frontend answers but does not list what it should)."""
        now = time.monotonic()
        self._collect(now)
        missing = self._missing(view)
        self.restless = bool(missing)
        if missing and not (self.was_ready and self._one_of_each(view)):
            return False, ", ".join(missing), not self.probe.lists_all and self._all_is_registered()
        if not view.listed:
            return False, f"model {self.probe.model} is not listed in /v1/models", self._all_is_registered()
        if (why := self._layouts.unfit(view) or self._unfound()) is not None:
            return False, why, False
        live = pairs(view, self.probe)
        if self.probe.warmup:
            self._greet(view)
            for pair in self.warmth.due(live, now):
                self._send(pair, self.warmth.began(pair, now))
            cold = self.warmth.cold(live)
            warm = bool(self.warmth.met & live)
            self.restless = self.restless or not live <= self.warmth.met
            if not warm or (cold and not self.was_ready):
                return False, self.warmth.describe(len(cold)), is_half_seen(self.warmth.why)
        if self.was_ready and (why := self._runners.none_ready(view.hosts)) is not None:
            return False, why, False
        self.was_ready = True
        return True, "", False

    def news(self) -> tuple[str, ...]:
        """Lines to be said, since the last call."""
        said, self._said = self._said, []
        return tuple(said)

    def _missing(self, view: View) -> list[str]:
        wanted = (("prefill", self.probe.prefill), ("backend", self.probe.backend))
        return [
            f"{len(view.instances.get(component, ()))} of {count} {component} instances registered"
            for component, count in wanted
            if len(view.instances.get(component, ())) < count
        ]

    def _all_is_registered(self) -> bool:
        """Whether what the frontend lacks is its own fault, as far as we know."""
        return self.probe.store is None or not lacks(self.probe.store)

    def _unfound(self) -> str | None:
        """Which prefill worker decode workers would not find, before any request needs it."""
        if self.was_ready or self._announced is None:
            return None
        return self._announced.fault()

    def _one_of_each(self, view: View) -> bool:
        wanted = (("prefill", self.probe.prefill), ("backend", self.probe.backend))
        return all(view.instances.get(component) for component, count in wanted if count)

    def _greet(self, view: View) -> None:
        """Say which workers are new to a frontend that has been ready."""
        workers = frozenset((c, i) for c in ("prefill", "backend") for i in view.instances.get(c, ()))
        for component, number in sorted(workers - self._known) if self.was_ready else ():
            self._said.append(
                f"a new {self._title(component)} worker is listed ({number}): it gets a request of ours now; "
                "clients' requests that reach it before its answer wait as long"
            )
        self._known = workers

    def _send(self, pair: Pair, timeout: float) -> None:
        threading.Thread(
            target=self._request, args=(pair, timeout), name=f"warm-up-{pair.backend}", daemon=True
        ).start()

    def _request(self, pair: Pair, timeout: float) -> None:
        try:
            why, served = request_tokens(self.probe, self._client(), pair, timeout)
        except Exception as error:  # like a probe that breaks: never a request that nobody hears of again
            why, served = f"the request could not be made: {error!r}", None
        self._ended.append((pair, served, why))
        self._wake()

    def _collect(self, now: float) -> None:
        while self._ended:
            pair, served, why = self._ended.popleft()
            if why is None:
                if (warm := self.warmth.answered(pair, served, now)) is not None:
                    self._said.append(f"{self._name(warm[0])}: first tokens after {warm[1]:.1f} s")
                continue
            text = why if pair.prefill is None or is_half_seen(why) else f"{why} ({PAIR_HINT})"
            self.warmth.failed(pair, text, now)
            if self.was_ready:
                self._said.append(f"{self._name(pair)}: no answer to a request of ours: {text}")

    def _title(self, component: str) -> str:
        return "prefill" if component == "prefill" else "decode" if self.probe.prefill else "aggregated"

    def _name(self, pair: Pair) -> str:
        backend = f"{self._title('backend')} worker {pair.backend}"
        return backend if pair.prefill is None else f"prefill worker {pair.prefill} and {backend}"


def is_half_seen(why: str) -> bool:
    """Whether a request failed because the frontend has not read the card of a prefill worker it lists."""
    return any(sign in why for sign in HALF_SEEN)


def pairs(view: View, probe: FrontendProbe) -> frozenset[Pair]:
    """Every pair of workers that the frontend may choose."""
    prefill: list[int | None] = [*view.instances.get("prefill", ())] if probe.prefill else [None]
    return frozenset(Pair(p, b) for p in prefill for b in view.instances.get("backend", ()))


def judge_of(
    probe: object,
    client: Callable[..., httpx.Client],
    wake: Callable[[], None],
    announced: Announced | None = None,
) -> FrontendHealth | None:
    """A judge where `probe` is a frontend's."""
    if not isinstance(probe, FrontendProbe):
        return None
    return FrontendHealth(probe, partial(client, None), wake, announced)
