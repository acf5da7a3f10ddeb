"""Asking a runner's health endpoint: what `status`, `probe` and the runners of other nodes do."""

from __future__ import annotations

import http.client
import urllib.parse
from typing import Any

from entrypoint.base.foreign import from_json
from entrypoint.base.printable import clean
from entrypoint.supervise.status import told

TIMEOUT = 5.0
"""Seconds."""


def bearer(token: str | None) -> dict[str, str]:
    """The header that shows `token`."""
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def asks_for(token: str | None) -> str:
    """Why it does not answer: it wants another token than `token`."""
    if token is None:
        return "it asks for a token: set GLM47_STATUS_TOKEN"
    return "it asks for another GLM47_STATUS_TOKEN than this one has"


def why(error: OSError) -> str:
    """The words of an error that `get` and `get_status` raise."""
    return error.strerror or str(error) or type(error).__name__


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
        body = _json(response)
    except (http.client.HTTPException, ValueError) as error:
        raise OSError(f"not a health endpoint: {clean(error)}") from None
    finally:
        connection.close()
    return response.status, body if isinstance(body, dict) else {}


def _json(response: http.client.HTTPResponse) -> Any:
    try:
        return from_json(response.read())
    except ValueError:
        raise ValueError(f"it answers {response.status} and no JSON") from None


def get_status(url: str, timeout: float = TIMEOUT, token: str | None = None) -> dict[str, Any]:
    """What the runner at `url` says of itself, complete (`told.status`).

    OSError when nobody answers in `timeout` seconds, or what answers is no runner; PermissionError when it
    asks for another token.
    """
    code, answer = get(url, "/status", timeout, token)
    if code == 401:
        raise PermissionError(asks_for(token))
    try:
        return told.status(answer if code == 200 else None)
    except ValueError as error:
        raise OSError(f"its health port answers {code} and {error}") from None
