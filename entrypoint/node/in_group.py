"""Whether LeaderWorkerSet made this pod, before anything is planned, and what its controller calls the pods.

`placement` reads its other variables. A DisaggregatedSet makes LeaderWorkerSets: their pods have the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_HASHED = re.compile(r"-[0-9a-f]{8}")
"""At the end of a leader's host name where `groupIdentity` is Hash; an ordinal of eight digits is none."""


def in_group(environ: Mapping[str, str]) -> bool:
    """Whether this is a pod of a group that starts and ends together."""
    return "LWS_GROUP_SIZE" in environ


def addresses(leader: str, size: int, rank: int, pod: str | None) -> tuple[str, ...]:
    """Where a LeaderWorkerSet's group of `size` pods is, by rank; empty: nobody can tell.

    Followers are called after the leader's pod: `glm47-prefill-0.glm47-prefill.default` has the follower
    `glm47-prefill-0-1.glm47-prefill.default`. Where `groupIdentity` is Hash the leader's host name is another
    one than its pod's, and only a pod that is told its own name, `pod`, knows the followers'.
    """
    host, dot, domain = leader.partition(".")
    if ":" in leader or leader.replace(".", "").isdigit():
        return ()
    stem: str | None = host
    if _HASHED.fullmatch(host[-9:]):
        # Who follows needs the leader's address only.
        stem = pod if rank == 0 else (pod or host).removesuffix(f"-{rank}")
    if stem is None:
        return ()
    return (leader, *(f"{stem}-{number}{dot}{domain}" for number in range(1, size)))


def unwatched(leader: str) -> str:
    """The warning of a pod that does not know the others of its group."""
    return (
        f"the runners of this group's other pods cannot be found by LWS_LEADER_ADDRESS ({leader}): none is "
        "missed when it is lost; give each pod POD_NAME, from its field metadata.name"
    )
