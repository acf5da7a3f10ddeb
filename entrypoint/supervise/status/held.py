"""A start that is refused and stays, not ready, with its reason: where an end would only begin it again.

LeaderWorkerSet deletes a group as soon as one of its containers has ended, with messages and logs, and makes
it again at once, without a back-off. Settings that are wrong (78) and a model that is (66) do not get better
by that.
"""

from __future__ import annotations

import signal
import threading
from typing import Any

from entrypoint import __version__
from entrypoint.base import last_words
from entrypoint.errors import ConfigError
from entrypoint.supervise.lifecycle.peer_watch import HELD
from entrypoint.supervise.status import health


def hold(code: int, reason: str, host: str, port: int, token: str | None = None) -> None:
    """Say the reason on the health port until a stop signal comes; the caller then ends with `code`.

    `token`: what it asks for, as in a run.
    """
    told = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(signum, lambda *_: told.set())
    shown = status(code, reason)
    try:
        listener = health.listen(host, port)
    except ConfigError as error:
        last_words.say(str(error))
    else:
        health.serve(listener, health.Views(lambda: shown, lambda: 0.0, token=token))
    last_words.say("held: not ready until the group is deleted or its settings change")
    told.wait()


def status(code: int, reason: str) -> dict[str, Any]:
    """What /status says of it, with the fields of a run (`report.status`). No exit code: it is live."""
    return {
        "version": __version__,
        "state": HELD,
        "ready": False,
        "started": False,
        "roles": [],
        "rank": 0,
        "nnodes": 1,
        "layouts": [],
        "node": None,
        "model": "",
        "uptime": 0.0,
        "reason": reason,
        "exit_code": None,
        "would_exit_with": code,
        "waiting_for": [f"other settings: {line}" for line in reason.splitlines()],
        "processes": [],
        "gates": [],
        "probes": {},
        "warnings": [],
    }
