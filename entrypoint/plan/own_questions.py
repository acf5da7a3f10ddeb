"""Telling the runner's own questions apart in the logs of those who are asked.

Dynamo's servers write a line for some answers: workers for every 503 (tower_http, ERROR), frontends of 1.3.1
and 1.6.1 for every answer (INFO). A runner that waits asks many times a minute. Its questions carry the
header `x-request-id: MARK`, Dynamo puts that on those lines, and the forwarder leaves out exactly the lines
that have it. 0.8.1, 0.9.1 and 1.0.2 show the header without being told, 1.3.1 and 1.6.1 with SPAN_FILTER in
DYN_LOG.
"""

from __future__ import annotations

import re

MARK = "glm47-runner-probe"
HEADERS = {"x-request-id": MARK}
"""What every question carries of which nobody needs to read."""
WARM_UP_HEADERS = {"x-request-id": "glm47-runner-warm-up"}
"""A warm-up request's lines stay: they tell why it failed."""

SPAN_FILTER = "system_span=4"
"""Level 4 is debug. As a number: Dynamo's Python half takes the word `debug` anywhere in DYN_LOG for its own
level, and formats records that are thrown away afterwards (runtime/logging.py of 1.3.1 and 1.6.1)."""

_MARK, _FIELD = MARK.encode(), b"x_request_id"
_RECORD = re.compile(rb"(?:\x1b\[[0-9;]*m)*(?:\{[^\n]*?)?\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[^\n]*")
"""From the time stamp to the end of the line: a progress bar without a newline may stand before it."""


def log_filter(own: str | None, engine: bool) -> str | None:
    """The value for DYN_LOG that marks our lines; None: leave it as it is.

    `own` is the person's, which is only added to. `engine`: the process runs SGLang, whose level is read from
    the whole text, so that one word such as `warn` is not understood any more with anything added.
    """
    if not own:
        return f"info,{SPAN_FILTER}"
    if "system_span" in own or (engine and "=" not in own and own not in ("info", "trace")):
        return None
    return f"{own},{SPAN_FILTER}"


def without_own(data: bytes) -> bytes:
    """Whole lines, each ended by a newline, without those about our own questions."""
    if _MARK not in data:
        return data
    return b"".join(map(_kept, data.splitlines(keepends=True)))


def _kept(line: bytes) -> bytes:
    if _MARK not in line or _FIELD not in line:
        return line
    rest = _RECORD.sub(b"", line)
    return rest if rest.strip() and rest != line else b""
