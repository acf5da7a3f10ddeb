"""Whether LeaderWorkerSet made this pod, before anything is planned. `placement` reads its variables."""

from __future__ import annotations

from collections.abc import Mapping


def in_group(environ: Mapping[str, str]) -> bool:
    """Whether this is a pod of a group that starts and ends together."""
    return "LWS_GROUP_SIZE" in environ
