"""Whether a worker that etcd listed is still on the list.

etcd drops a worker whose lease is not renewed for 10 s, and Dynamo ends a worker that hears so. One whose
connection leads to a node that is gone hears nothing for minutes: it runs on, ready, and no frontend knows
it. So it is looked for over a connection of our own.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from entrypoint.plan.types import Withdrawal
from entrypoint.supervise.discovery.registry import RegistryError, open_registry
from entrypoint.supervise.discovery.withdrawing import served_by

EVERY = 15.0
"""Seconds between two looks while all is well."""
AGAIN = 2.0
"""And while it is missing, or was not seen there yet."""
SETTLED = 30.0
"""Seconds after the first look by which one that is ready has been listed, or cannot be told."""
PATIENCE = 20.0
"""Seconds that it may be missing: a worker that has lost its lease ends, or registers anew, in less."""


class Listed:
    """One life of a worker. Called from one thread."""

    patience = PATIENCE

    def __init__(self, withdrawal: Withdrawal, environ: Mapping[str, str], pid: int) -> None:
        """`environ` may hold Dynamo's ETCD_AUTH_* variables."""
        self._place, self._environ, self._pid = withdrawal, environ, pid
        self._keys: set[str] = set()
        """Under which it was listed when it was seen there the last time."""
        self._why: str | None = None
        self._began: float | None = None
        self._looked_at = float("-inf")

    def fault(self) -> str | None:
        """Why no frontend finds the worker; None: it is listed, never was, or the list cannot be asked."""
        now = time.monotonic()
        self._began = now if self._began is None else self._began
        unseen = not self._keys and now - self._began < SETTLED
        if now - self._looked_at >= (AGAIN if self._why or unseen else EVERY):
            self._looked_at = now
            self._why = self._look()
        return self._why

    def _look(self) -> str | None:
        try:
            with open_registry(self._place, self._environ) as registry:
                instances = registry.instances()
            listed = {entry.key for entry in instances}
            # Looking for its ports takes longer than the answer.
            if not self._keys & listed:
                self._keys = {entry.key for entry in served_by(self._pid, instances)} or self._keys
        except (RegistryError, OSError):
            return None
        if not self._keys or self._keys & listed:
            return None
        return (
            f"it is off the list in {self._place.where}, which answers others: its connection leads nowhere, "
            "as to a node that is gone: start it again"
        )
