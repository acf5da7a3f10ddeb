"""Makes this container one of an etcd's members, then becomes etcd.

etcd itself only knows a first start of all members, and a start over data. One that comes back with nothing,
while the others know its name, ends (`has already been bootstrapped`), or breaks what they agreed on if it
finds none of them. So it is taken out of the list of members and added anew, which takes a majority of them.

    python -m entrypoint.supervise.discovery.joining \\
        --others=http://b:2379,http://c:2379 --patience=300 --tls= -- etcd --name=a --data-dir=… …
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from entrypoint.supervise.discovery.registry import Etcds, RegistryError, etcds

FIRST_LOOK = 2.0
"""Seconds for one of the others to answer. At the first start of them all none does, and one goes first."""
PAUSE = 0.5
"""Seconds between two tries."""
UNAVAILABLE = 69
"""Exit code of a container whose server does not come."""


@dataclass(frozen=True)
class Known:
    """A member, as the others list it."""

    number: str
    name: str
    peers: tuple[str, ...]
    served: bool
    """It has been a member: it said where it serves clients."""


@dataclass(frozen=True)
class Ask:
    """How this member is to come to the others, who list it or not."""

    remove: str | None
    """What it was before it lost its data."""
    add: bool


def asked_for(listed: Sequence[Known], own: str) -> Ask | None:
    """What a member without data at peer URL `own` has to ask for; None: all start for the first time."""
    mine = next((one for one in listed if own in one.peers), None)
    if mine is None:
        return Ask(None, add=True)
    if mine.served:
        return Ask(mine.number, add=True)
    return None if mine.name else Ask(None, add=False)


def cluster(listed: Sequence[Known], names: Mapping[str, str]) -> str:
    """etcd's --initial-cluster of the members `listed`; `names`: ours, by peer URL."""
    return ",".join(
        f"{names.get(peer) or one.name or one.number}={peer}" for one in listed for peer in one.peers
    )


def option(argv: Sequence[str], name: str) -> str:
    """The value of etcd's option `name` in `argv`, written with an equals sign."""
    return next(word.partition("=")[2] for word in argv if word.startswith(f"{name}="))


def has_data(directory: Path) -> bool:
    """Whether etcd would go on with what is in `directory`: it goes by its log alone."""
    return any((directory / "member" / "wal").glob("*.wal"))


def joined(argv: Sequence[str], others: Etcds, patience: float) -> list[str]:
    """`argv` of an etcd without data as it has to be started now; it may have been added to the others' list.

    Raises RegistryError with the reason when they do not let it, for `patience` seconds.
    """
    own, began, why = option(argv, "--initial-advertise-peer-urls"), time.monotonic(), ""
    names = {
        peer: name
        for name, _, peer in (w.partition("=") for w in option(argv, "--initial-cluster").split(","))
    }
    while True:
        waited = time.monotonic() - began
        try:
            listed = _listed(others)
            ask = asked_for(listed, own)
            if ask is None:
                return list(argv)
            if not why:
                _say(f"joins {', '.join(one.name or one.number for one in listed)}")
            if ask.remove:
                others.post("/v3/cluster/member/remove", ID=ask.remove)
            if ask.add:
                answer = others.post("/v3/cluster/member/add", peerURLs=[own])
                listed = list(_members(answer))
            return [*_as_member(argv, cluster(listed, names))]
        except (RegistryError, OSError) as error:
            why = str(error)
            if waited >= FIRST_LOOK and not others.answered:
                return list(argv)
            if waited >= patience:
                raise
        time.sleep(PAUSE)


def _listed(others: Etcds) -> list[Known]:
    # Any of them may answer from what it knows: without a majority there is no other answer.
    return list(_members(others.post("/v3/cluster/member/list", linearizable=False)))


def _members(answer: Mapping[str, Any]) -> Iterator[Known]:
    for one in answer.get("members", []):
        peers = tuple(one.get("peerURLs", []))
        yield Known(str(one["ID"]), str(one.get("name", "")), peers, bool(one.get("clientURLs")))


def _as_member(argv: Sequence[str], initial: str) -> Iterator[str]:
    for word in argv:
        yield f"--initial-cluster={initial}" if word.startswith("--initial-cluster=") else word
    yield "--initial-cluster-state=existing"


def _say(text: str) -> None:
    print(text, flush=True)


def main(words: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Become etcd; 69 when the others do not let it in. `environ` may hold ETCD_AUTH_*."""
    own, argv = words[: words.index("--")], list(words[words.index("--") + 1 :])
    directory = Path(option(argv, "--data-dir"))
    if not has_data(directory):
        places = option(own, "--others")
        tls = option(own, "--tls") or None
        with etcds(places, tls and f"{tls}/ca.crt", environ, tls) as others:
            try:
                argv = joined(argv, others, float(option(own, "--patience")))
            except (RegistryError, OSError) as error:
                _say(
                    f"cannot join the other etcd members: {places}: {error}: start those that are missing; "
                    "if most have lost their data, empty the data directories of all: workers register anew"
                )
                sys.exit(UNAVAILABLE)
        # What etcd left there before it wrote its log: it would take it for its own.
        shutil.rmtree(directory / "member", ignore_errors=True)
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    main(sys.argv[1:], os.environ)
