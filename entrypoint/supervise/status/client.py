"""Asking a runner's health endpoint: what `status`, `probe` and the runners of other nodes do."""

from __future__ import annotations

import http.client
import urllib.parse
from typing import Any

from entrypoint.base.foreign import from_json

TIMEOUT = 5.0
"""Seconds."""


def bearer(token: str | None) -> dict[str, str]:
    """The header that shows `token`."""
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def get(
    url: str, path: str, timeout: float = TIMEOUT, token: str | None = None
) -> tuple[int, dict[str, Any]]:
    """GET `path` of a health endpoint: status code and JSON body. `token`: GLM47_STATUS_TOKEN.

    OSError when nobody answers in `timeout` seconds.
    """
    # http.client instead of httpx: container engines start `probe` every few seconds.
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    try:
        connection.request("GET", path, headers=bearer(token))
        response = connection.getresponse()
        body = from_json(response.read())
    except (http.client.HTTPException, ValueError) as error:
        raise OSError(f"not a health endpoint: {error}") from None
    finally:
        connection.close()
    return response.status, body if isinstance(body, dict) else {}
