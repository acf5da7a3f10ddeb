"""The pages for people, loaded when somebody asks for the first one: `/`, its events, views and logs."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Any

from entrypoint.plan.types import Plan
from entrypoint.supervise.status.deployment import Deployment
from entrypoint.supervise.status.view import NodeView

LOG_LINES = 4000
"""Lines of a process's log that are shown, as far as they are kept."""
SECURITY = {
    # One file with its script and style in it: nothing else is loaded, and nobody may frame it.
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
FILE = Path(__file__).with_name("page.html")


class Pages:
    """What the health endpoint shows to people."""

    def __init__(
        self, plan: Plan, status: Callable[[], dict[str, Any]], last_lines: Callable[[str, int], list[str]]
    ) -> None:
        self._view = NodeView(plan, status, last_lines)
        self._deployment = Deployment(plan, self._view)

    def page(self) -> bytes:
        """The page itself; its data come as events."""
        return FILE.read_bytes()

    def view(self) -> dict[str, Any]:
        """This node, for the page of the whole deployment."""
        return self._view.make()

    def log(self, name: str) -> str | None:
        """The last lines of a process; None: there is no such process."""
        return self._view.log(name, LOG_LINES)

    def finish(self, code: int, reason: str) -> None:
        """Have open pages say how this runner ends."""
        self._deployment.finish(code, reason)

    def events(self) -> Generator[bytes, None, None]:
        """Server-sent events, without end."""
        yield b"retry: 1000\n\n"
        with closing(self._deployment.events()) as events:
            for event in events:
                yield b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"
