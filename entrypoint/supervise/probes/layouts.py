"""Whether the prefill and decode workers that a frontend lists fit together, as their runners tell.

Where workers were started apart, no container may have known of both. The frontend sees both: their runners
tell their layouts, and a pair that would exchange a wrong KV cache gets no request.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from entrypoint.base.foreign import from_json
from entrypoint.plan.engine import kv_layouts
from entrypoint.plan.probe_types import FrontendProbe
from entrypoint.plan.types import KvLayout
from entrypoint.supervise.probes.runners import TIMEOUT

if TYPE_CHECKING:
    import httpx

    from entrypoint.supervise.probes.asking import View

ROLES = {"prefill": "prefill", "backend": "decode"}
"""The role behind each of Dynamo's components, where there are prefill workers."""
TRIES = 3
"""Questions that a runner may leave open; then it has none of ours, or an older one, beside its worker."""
_FIELDS = {field.name for field in dataclasses.fields(KvLayout)}


class Layouts:
    """What the runners beside one frontend's workers have told of their layouts."""

    def __init__(self, probe: FrontendProbe, client: Callable[[], httpx.Client]) -> None:
        self._probe, self._client = probe, client
        self._listed: Mapping[str, Any] = {}
        self._told: dict[tuple[str, str], KvLayout] = {}
        self._asked: dict[tuple[str, str], int] = {}

    def unfit(self, view: View) -> str | None:
        """Why requests would be answered wrongly; None as far as anybody knows."""
        if not self._probe.layouts or self._probe.workers_port is None:
            return None
        if view.instances != self._listed:
            # Somebody came, or came back as another: everything is asked anew.
            self._listed = view.instances
            self._told, self._asked = {}, {}
        found: dict[str, dict[str, KvLayout]] = {}
        for component, role in ROLES.items():
            for host in dict.fromkeys(view.hosts.get(component, ())):
                if host and (layout := self._layout(host, role)) is not None:
                    found.setdefault(role, {})[host] = layout
        for at, prefill in found.get("prefill", {}).items():
            for there, decode in found.get("decode", {}).items():
                verdict = kv_layouts.fit(prefill, decode)
                if verdict.refused:
                    return (
                        f"the prefill worker at {at} and the decode worker at {there} do not fit together: "
                        f"{kv_layouts.describe(prefill, decode, verdict)}"
                    )
        return None

    def _layout(self, host: str, role: str) -> KvLayout | None:
        key = (host, role)
        if key not in self._told and self._asked.get(key, 0) < TRIES:
            self._asked[key] = self._asked.get(key, 0) + 1
            if (layout := self._ask(host, role)) is not None:
                self._told[key] = layout
        return self._told.get(key)

    def _ask(self, host: str, role: str) -> KvLayout | None:
        import httpx

        try:
            response = self._client().get(f"http://{host}:{self._probe.workers_port}/status", timeout=TIMEOUT)
            data = next(d for d in from_json(response.content)["layouts"] if d["role"] == role)
            return KvLayout(**{name: value for name, value in data.items() if name in _FIELDS})
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError, StopIteration):
            return None
