"""Who reaches whom, as a network plugin works it out from NetworkPolicies (networking.k8s.io/v1)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tests.k8s.manifests import NAMESPACE, Object, PodSpec, of_kind

UNNAMED = 40000
"""A port that no container names: of the request plane, of a KV transfer."""


@dataclass(frozen=True)
class End:
    """One end of a connection: a pod by its labels and namespace, or a machine by its address."""

    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: str = NAMESPACE
    address: str | None = None
    """Of what is no pod."""
    ports: Mapping[str, int] = field(default_factory=dict)
    """Its containers' ports, by name."""


def end(pod: PodSpec) -> End:
    """A pod of rendered manifests."""
    ports = {p["name"]: p["containerPort"] for p in pod.container.get("ports", ())}
    return End(pod.labels, ports=ports)


def matches(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector chooses `labels`; an empty one chooses all."""
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for term in selector.get("matchExpressions") or ():
        there, values = labels.get(term["key"]), term.get("values") or ()
        fits = {
            "In": there in values,
            "NotIn": there not in values,
            "Exists": there is not None,
            "DoesNotExist": there is None,
        }
        if not fits[term["operator"]]:
            return False
    return True


def allowed(policies: list[Object], source: End, target: End, port: int, protocol: str = "TCP") -> bool:
    """Whether a connection passes both ends' policies."""
    return _passes(policies, "Egress", source, target, target, port, protocol) and _passes(
        policies, "Ingress", target, source, target, port, protocol
    )


def _passes(
    policies: list[Object], way: str, of: End, other: End, target: End, port: int, protocol: str
) -> bool:
    """Whether `of`'s policies let it talk with `other` that way; what no policy chooses may do all."""
    if of.address is not None or of.namespace != NAMESPACE:
        return True
    chosen = [p["spec"] for p in policies if matches(p["spec"]["podSelector"], of.labels)]
    chosen = [spec for spec in chosen if way in spec.get("policyTypes", ("Ingress",))]
    if not chosen:
        return True
    return any(
        _about(rule.get("from" if way == "Ingress" else "to"), other)
        and _ports(rule.get("ports"), target, port, protocol)
        for spec in chosen
        for rule in spec.get("ingress" if way == "Ingress" else "egress") or ()
    )


def _about(peers: list[Object] | None, other: End) -> bool:
    if not peers:
        return True
    return any(_is(peer, other) for peer in peers)


def _is(peer: Object, other: End) -> bool:
    if (block := peer.get("ipBlock")) is not None:
        if other.address is None:
            return False
        address = ipaddress.ip_address(other.address)
        inside = address in ipaddress.ip_network(block["cidr"])
        return inside and not any(address in ipaddress.ip_network(n) for n in block.get("except") or ())
    if other.address is not None:
        return False
    spaces = peer.get("namespaceSelector")
    in_space = (
        other.namespace == NAMESPACE
        if spaces is None
        else matches(spaces, {"kubernetes.io/metadata.name": other.namespace})
    )
    return in_space and matches(peer.get("podSelector") or {}, other.labels)


def _ports(ports: list[Object] | None, target: End, port: int, protocol: str) -> bool:
    if not ports:
        return True
    for each in ports:
        if each.get("protocol", "TCP") != protocol:
            continue
        wanted = each.get("port")
        number = target.ports.get(wanted) if isinstance(wanted, str) else wanted
        if (
            wanted is None
            or port == number
            or (number is not None and number < port <= each.get("endPort", 0))
        ):
            return True
    return False


def reachable(objects: list[Object], source: End, target: End) -> Iterator[str]:
    """The names of the ports of a pod that `source` reaches; `any` for one that has no name."""
    policies = of_kind(objects, "NetworkPolicy")
    for name, number in {**target.ports, "any": UNNAMED}.items():
        if allowed(policies, source, target, number):
            yield name
