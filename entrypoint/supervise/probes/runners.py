"""Asks the runners beside a frontend's workers whether those are ready.

A worker that hangs stays registered until its container ends. Its own runner knows better, and answers on the
same port in every container of a deployment, but for a node's further workers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from entrypoint.base.foreign import from_json
from entrypoint.plan.types import FrontendProbe

if TYPE_CHECKING:
    import httpx

TIMEOUT = 1.0
"""Seconds that a runner's answer may take."""
ROLES = {"prefill": ("prefill",), "backend": ("decode", "aggregated")}
"""Roles of the processes that serve each of Dynamo's components."""
_HOST = re.compile(r"(?:^|//)(\[[^\]]+\]|[^/:]+):\d+(?:/|$)")


class Runners:
    """The runners beside one frontend's workers, and which of them have ever told of a worker."""

    def __init__(self, probe: FrontendProbe, client: Callable[[], httpx.Client]) -> None:
        self._probe, self._client = probe, client
        self._told: set[tuple[str, int, str]] = set()

    def none_ready(self, where: Mapping[str, tuple[str, ...]]) -> str | None:
        """Why nobody answers this frontend's requests; None while somebody does. `where`: hosts by component.

        A worker whose runner has never told of it counts as ready: it is registered, and nothing else is
        known. A runner that has, and then refuses connections, is gone with its worker.
        """
        if self._probe.workers_port is None:
            return None
        for component, wanted in (("prefill", self._probe.prefill), ("backend", self._probe.backend)):
            hosts = list(dict.fromkeys(where.get(component, ())))
            if not wanted or not hosts:
                continue
            reasons = []
            for host in hosts:
                # The first that is ready is enough: a deployment of many workers is asked one question.
                if (why := self._none_on(host, component)) is None:
                    break
                reasons.append(f"{host}: {why}")
            else:
                return f"none of its {component} workers is ready: {'; '.join(reasons)}"
        return None

    def _none_on(self, host: str, component: str) -> str | None:
        """Why no worker of that machine is ready, as its first one's runner says."""
        assert self._probe.workers_port is not None
        if (why := self._not_ready(host, self._probe.workers_port, component)) is None:
            return None
        for port in self._probe.further_ports.get(component, ()):
            # One that has never told is none: not every node has as many workers.
            if self._not_ready(host, port, component) is None and (host, port, component) in self._told:
                return None
        return why

    def _not_ready(self, host: str, port: int, component: str) -> str | None:
        import httpx

        url = f"http://{host}:{port}/status"
        try:
            response = self._client().get(url, timeout=TIMEOUT)
            processes = from_json(response.content)["processes"] if response.is_success else []
            workers = [process for process in processes if process["role"] in ROLES[component]]
            ready = any(process["ready"] for process in workers)
        except httpx.ConnectError:
            return "its runner is gone" if (host, port, component) in self._told else None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
            return None
        if not workers:
            return None
        self._told.add((host, port, component))
        return None if ready else str(workers[0].get("why") or "it does not say why")


def hosts_of(health: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Hosts of the registered workers by component, from the body of a frontend's /health."""
    hosts: dict[str, tuple[str, ...]] = {}
    for instance in health.get("instances") or []:
        if isinstance(instance, dict) and instance.get("endpoint") == "generate":
            component = str(instance.get("component"))
            hosts[component] = (*hosts.get(component, ()), _host(instance.get("transport")))
    return hosts


def _host(transport: object) -> str:
    texts = transport.values() if isinstance(transport, dict) else [transport]
    found = [match[1] for text in texts if isinstance(text, str) for match in _HOST.finditer(text)]
    return found[0] if found else ""
