"""The reason of an end as an Event of Kubernetes: it stays where the pod and its messages are gone.

LeaderWorkerSet deletes a group with its logs as soon as one container has ended. Nothing here raises or takes
longer than PATIENCE: an API server that is slow, refuses, or answers nonsense changes no end.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from entrypoint.base import tls
from entrypoint.base.printable import clean
from entrypoint.errors import ExitCode

if TYPE_CHECKING:
    import httpx

    from entrypoint.node.in_pod import Pod

PATIENCE = 2.0
"""Seconds that telling may take, all of it."""
MOST = 1024
"""Bytes of a message that the API server takes."""
LONGEST_NAME = 200
"""Characters of a pod's name in the Event's, which may have 253."""
HELD = "Held"
REASONS: dict[int, str] = {
    ExitCode.MODEL: "ModelUnusable",
    ExitCode.UNAVAILABLE: "ServerUnavailable",
    ExitCode.SOFTWARE: "RunnerFault",
    ExitCode.CANTCREAT: "CannotWrite",
    ExitCode.TEMPFAIL: "DidNotGetOn",
    ExitCode.PEER_LOST: "PeerLost",
    ExitCode.CONFIG: "BadConfiguration",
}
"""Of the Event, by exit code. Anything else is a process that ended."""
ENDED = "ProcessEnded"
REPORTER = "glm47-runner"
GROUPS = "leaderworkerset.x-k8s.io/v1"


def tell(pod: Pod, code: int, reason: str, held: bool = False) -> str | None:
    """Make the Event of an end with `code`, or of a start that is refused and held. Why not, if it failed."""
    failed = [f"no answer within {PATIENCE:g} s"]

    def work() -> None:
        try:
            failed[0] = _tell(pod, code, reason, held)
        except Exception as error:
            failed[0] = _why(error)

    worker = threading.Thread(target=work, name="event", daemon=True)
    try:
        worker.start()
    except RuntimeError as error:
        return f"no Event was made: {error}"
    # A thread that is stuck in a name, a handshake or a trickle of bytes ends with this process.
    worker.join(PATIENCE)
    return f"no Event was made: {first}" if (first := failed[0].partition("\n")[0]) else None


def _why(error: Exception) -> str:
    """In words, but those of libraries that quote a token they cannot send."""
    import httpx

    quiet = isinstance(error, httpx.ProtocolError) or not isinstance(error, OSError | httpx.TransportError)
    return type(error).__name__ if quiet or not str(error) else str(error)


def _tell(pod: Pod, code: int, reason: str, held: bool) -> str:
    """Why it failed; empty: it is there."""
    import httpx

    namespace = pod.namespace or (pod.account / "namespace").read_text().strip()
    made = event(pod, namespace, code, reason, held, time.time_ns())
    trust = tls.context(str(pod.account / "ca.crt"))
    headers = {"Authorization": f"Bearer {(pod.account / 'token').read_text().strip()}"}
    # A proxy has no business between a pod and its API server.
    with httpx.Client(
        base_url=pod.api, headers=headers, verify=trust, trust_env=False, timeout=PATIENCE
    ) as client:
        failed = _post(client, namespace, made)
        if pod.group:
            # The pod's own goes first: of the group nothing is known but its name, unless we may ask.
            uid = _uid(client, namespace, pod.group)
            _post(client, namespace, about_group(made, pod.group, uid))
    return failed


def _post(client: httpx.Client, namespace: str, made: dict[str, Any]) -> str:
    answer = client.post(f"/api/v1/namespaces/{namespace}/events", json=made)
    return "" if answer.status_code in (200, 201) else f"the API server answers {answer.status_code}"


def _uid(client: httpx.Client, namespace: str, group: str) -> str:
    """Of a LeaderWorkerSet; empty: it is not ours to read."""
    from entrypoint.base.foreign import json_object

    answer = client.get(f"/apis/{GROUPS}/namespaces/{namespace}/leaderworkersets/{group}")
    metadata = json_object(answer.text).get("metadata") if answer.status_code == 200 else None
    uid = metadata.get("uid") if isinstance(metadata, dict) else None
    return uid if isinstance(uid, str) else ""


def event(pod: Pod, namespace: str, code: int, reason: str, held: bool, now: int) -> dict[str, Any]:
    """The Event at `now` (nanoseconds since 1970), as Kubernetes' own reporters write theirs."""
    lines = "\n".join(map(clean, reason.splitlines()))
    told = f"held, it would end with {code}: {lines}" if held else f"ended with {code}: {lines}"
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now // 10**9))
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{pod.name[:LONGEST_NAME]}.{now:x}", "namespace": namespace},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": pod.name,
            "namespace": namespace,
            **({"uid": pod.uid} if pod.uid else {}),
        },
        "type": "Warning",
        "reason": HELD if held else REASONS.get(code, ENDED),
        "message": shortened(told),
        "source": {"component": REPORTER},
        "reportingComponent": REPORTER,
        "reportingInstance": pod.name[:128],
        # Each end is one of its own: those of one pod are at least a start apart, so they are not counted up.
        "count": 1,
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
    }


def about_group(made: dict[str, Any], group: str, uid: str) -> dict[str, Any]:
    """The same of the LeaderWorkerSet, with the pod's name in the message."""
    pod, namespace = made["involvedObject"]["name"], made["metadata"]["namespace"]
    about = {"apiVersion": GROUPS, "kind": "LeaderWorkerSet", "name": group, "namespace": namespace}
    return {
        **made,
        "metadata": {**made["metadata"], "name": f"{made['metadata']['name']}.group"},
        "involvedObject": {**about, **({"uid": uid} if uid else {})},
        "message": shortened(f"{pod} {made['message']}"),
    }


def shortened(text: str) -> str:
    """`text` in MOST bytes, without half a character at its end."""
    raw = text.encode("utf-8", "replace")
    if len(raw) <= MOST:
        return raw.decode()
    return raw[: MOST - len("…".encode())].decode("utf-8", "ignore") + "…"
