"""The pod that this container is, and the account that it may speak to the API server with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from entrypoint.node.in_group import in_group

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where Kubernetes mounts a service account."""
OFF = "off"


@dataclass(frozen=True)
class Pod:
    """Who this is, and how to tell the API server."""

    api: str
    """`https://10.96.0.1:443`."""
    account: Path
    """A directory with `token`, `ca.crt` and, if nothing else says it, `namespace`."""
    name: str
    namespace: str | None
    """None: the account's own."""
    uid: str = ""
    """Empty: not told, and `kubectl describe` does not find what is said of this pod."""
    group: str = ""
    """The LeaderWorkerSet that made it; empty: none."""


def in_pod(environ: Mapping[str, str], events: str | None) -> Pod | None:
    """This pod, where it has a token to speak with; None anywhere else. `events`: GLM47_EVENTS."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT", "443")
    account = Path(ACCOUNT if events in (None, "auto") else events)
    name = environ.get("POD_NAME") or environ.get("HOSTNAME")
    if events == OFF or not host or not name:
        return None
    # One that somebody named is missed where it is not there.
    if account == Path(ACCOUNT) and not (account / "token").is_file():
        return None
    return Pod(
        api=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        account=account,
        name=name,
        namespace=environ.get("POD_NAMESPACE") or None,
        uid=environ.get("POD_UID", ""),
        group=_group(environ) if in_group(environ) else "",
    )


def _group(environ: Mapping[str, str]) -> str:
    """`glm47-prefill` of `glm47-prefill-0.glm47-prefill.default`; empty: the address has no name."""
    leader = environ.get("LWS_LEADER_ADDRESS", "")
    host = leader.partition(".")[0]
    return "" if host.isdigit() or ":" in leader else host.rpartition("-")[0]
