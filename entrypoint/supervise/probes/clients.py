"""HTTP clients by CA file, made on first use: httpx is not imported before something runs."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any

from entrypoint.base import tls
from entrypoint.plan.own_questions import HEADERS
from entrypoint.supervise.probes.asking import TIMEOUT

if TYPE_CHECKING:
    import ssl

    import httpx


class _Unverified:
    """What TLS goes by where nobody said whom to trust, made for the first such connection.

    OpenSSL takes 5 MB, and most runners ask nobody over TLS.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    @cached_property
    def _context(self) -> ssl.SSLContext:
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context


def _trusting(ca_file: str | None, tls_dir: str | None) -> ssl.SSLContext:
    import ssl

    context = tls.context(ca_file, tls_dir)
    if ca_file is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Clients:
    """One client for each CA file, for all threads."""

    def __init__(self, status_token: str | None = None) -> None:
        self._status_token = status_token
        self._lock = threading.Lock()
        self._clients: dict[tuple[str | None, str | None], httpx.Client] = {}

    def get(self, ca_file: str | None, tls_dir: str | None = None) -> httpx.Client:
        """The client that trusts who `ca_file` (or its text) vouches for; None: everybody.

        `tls_dir`: it shows the certificate there. OSError: one of them cannot be read.
        """
        import httpx

        with self._lock:
            key = (ca_file, tls_dir)
            if key not in self._clients:
                verify: Any = _trusting(ca_file, tls_dir) if ca_file or tls_dir else _Unverified()
                # A proxy has no business between a container and its own servers. A connection for every
                # question: one that is kept leads to where a Service's address led when it was made.
                once = httpx.Limits(max_keepalive_connections=0)
                self._clients[key] = httpx.Client(
                    verify=verify,
                    trust_env=False,
                    timeout=TIMEOUT,
                    limits=once,
                    headers=HEADERS,
                    auth=self._show_token,
                )
            return self._clients[key]

    def _show_token(self, request: httpx.Request) -> httpx.Request:
        """To runners only: engines and servers have no page of that name."""
        if self._status_token is not None and request.url.path == "/status":
            request.headers["Authorization"] = f"Bearer {self._status_token}"
        return request
