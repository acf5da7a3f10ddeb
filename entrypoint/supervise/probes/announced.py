"""Where prefill workers announce their bootstrap servers, and whether those are found from here.

Dynamo writes the address into a prefill worker's model card. Decode workers ask there at their first request:
if nobody answers, the request gets no tokens, and only decode's log says why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from entrypoint.base.foreign import from_json
from entrypoint.plan.types import Announcements
from entrypoint.supervise.discovery.registry import RegistryError, open_registry
from entrypoint.supervise.probes import bootstrap_server

if TYPE_CHECKING:
    import httpx

AGAIN = 2.0
"""Seconds between two looks while something is wrong."""
REMEDY = "correct that worker's GLM47_INTERFACE, SGLANG_HOST_IP or --host, or let its port through"


class Announced:
    """The bootstrap servers of one deployment. A server that was found is not asked again."""

    def __init__(
        self, place: Announcements, environ: Mapping[str, str], client: Callable[[], httpx.Client]
    ) -> None:
        """`environ` may hold Dynamo's ETCD_AUTH_* variables."""
        self._place, self._environ, self._client = place, environ, client
        self.found: set[str] = set()
        self._looked_at, self._why = float("-inf"), ""

    def fault(self) -> str | None:
        """Why a decode worker here would not find a prefill worker; None: it would, or none is announced."""
        now = time.monotonic()
        if self._why and now - self._looked_at < AGAIN:
            return self._why
        self._looked_at = now
        self._why = next(self.faults(), "")
        return self._why or None

    def faults(self) -> Iterator[str]:
        """One line for each server that is not found, as it is asked."""
        yield from filter(None, map(self._ask, self._new()))

    def _new(self) -> list[str]:
        try:
            with open_registry(self._place, self._environ) as registry:
                cards = [entry.value for entry in registry.cards()]
        except (RegistryError, OSError):
            return []  # the frontend asks the same store, and says more about it
        return [url for url in urls(cards, self._place.namespace) if url not in self.found]

    def _ask(self, url: str) -> str | None:
        why = bootstrap_server.fault(url, self._client())
        if why is None:
            self.found.add(url)
            return None
        return f"the bootstrap server that a prefill worker announces, {url}, {why}: {REMEDY}"


def urls(cards: Iterable[str], namespace: str) -> list[str]:
    """The bootstrap servers in model cards of `namespace`. What cannot be read announces none."""
    found = []
    for text in cards:
        try:
            card = from_json(text)
            told = card["card_json"]["runtime_config"]["disaggregated_endpoint"]
            host, port, home = told["bootstrap_host"], told["bootstrap_port"], str(card["namespace"])
        except (ValueError, KeyError, TypeError):
            continue
        # From 1.0 on a worker may add a suffix to its namespace.
        mine = home == namespace or home.startswith(f"{namespace}-")
        if mine and card.get("component") == "prefill" and host and port:
            found.append(f"http://{host if ':' not in host or host.startswith('[') else f'[{host}]'}:{port}")
    return sorted(set(found))
