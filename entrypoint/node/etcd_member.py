"""Which of an etcd's members this machine is."""

from __future__ import annotations

from collections.abc import Sequence

from entrypoint.node.network import Network, is_loopback
from entrypoint.settings.members import Member


def own(members: Sequence[Member], network: Network) -> str | None:
    """The name of the one of `members` that this machine is; None: none, or several could be.

    Its own name says it, whole or up to the first dot (`glm47-etcd-0.glm47-pods`); else its addresses do.
    """
    name = network.name().lower()
    for same in (str, _first):
        found = [one for one in members if same(one.host.lower()) == same(name)]
        if len(found) == 1:
            return found[0].name
        if found:
            break
    here = [one for one in found or members if _is_here(one.host, network)]
    return here[0].name if len(here) == 1 else None


def _first(name: str) -> str:
    return name.partition(".")[0]


def _is_here(host: str, network: Network) -> bool:
    return any(not is_loopback(address) and network.is_own(address) for address in network.addresses(host))
