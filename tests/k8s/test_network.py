"""Who reaches which port of whom, worked out from the rendered network policies."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.k8s.manifests import (
    K8S,
    OVERLAYS,
    Object,
    PodSpec,
    build,
    of_kind,
    overlay,
    pods,
    with_component,
)
from tests.k8s.network import End, allowed, end, reachable

COMPONENT = "app.kubernetes.io/component"
STRANGER = End({"app": "other"})
"""A pod of somebody else's in the same namespace."""
ELSEWHERE = End({"app.kubernetes.io/name": "glm47"}, namespace="team-b")
"""A pod of another namespace that calls itself as ours do."""
PROMETHEUS = End({"app.kubernetes.io/name": "prometheus"}, namespace="monitoring")
OUTSIDE = End(address="203.0.113.9")
METADATA = End(address="169.254.169.254")
"""Where clouds give credentials away."""
API_SERVER = End(address="10.96.0.1")
OTHERS = (STRANGER, ELSEWHERE, PROMETHEUS, OUTSIDE)


def component(pod: PodSpec) -> str:
    return str(pod.labels[COMPONENT])


@pytest.mark.parametrize("name", OVERLAYS)
def test_nobody_else_reaches_more_than_the_api(name: str) -> None:
    """Not the runners' pages (/plan, /status), not the engines' metrics, not etcd, not NATS."""
    objects = overlay(name)
    for pod in pods(objects):
        api = {"http"} if component(pod) == "frontend" else set()
        for other in OTHERS:
            assert set(reachable(objects, other, end(pod))) == api, (pod.name, other)


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_pods_reach_each_other_on_every_port(name: str) -> None:
    """Peers ask each other's runners; the request plane and KV transfers choose ports at run time."""
    objects = overlay(name)
    made = pods(objects)
    for source in made:
        for target in made:
            assert set(reachable(objects, end(source), end(target))) == {*end(target).ports, "any"}


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_pods_reach_nobody_else(name: str) -> None:
    """Names can be asked for, and that is all."""
    objects = overlay(name)
    policies = of_kind(objects, "NetworkPolicy")
    resolver = End({"k8s-app": "kube-dns"}, namespace="kube-system")
    on_the_node = End(address="169.254.20.10")
    for pod in pods(objects):
        for target in (STRANGER, ELSEWHERE, PROMETHEUS, OUTSIDE, METADATA, API_SERVER, resolver, on_the_node):
            for port in (22, 80, 443, 2379, 6443, 8080, 9480):
                assert not allowed(policies, end(pod), target, port), (pod.name, target, port)
        for names in (resolver, on_the_node):
            assert all(allowed(policies, end(pod), names, 53, protocol) for protocol in ("UDP", "TCP"))
        assert not any(allowed(policies, end(pod), OUTSIDE, 53, protocol) for protocol in ("UDP", "TCP"))


def test_prometheus_reaches_what_has_metrics_and_nobody_else_does(tmp_path: Path) -> None:
    objects = with_component("monitoring", tmp_path)
    for pod in pods(objects):
        scraped = {"health", "system", "http"} & set(end(pod).ports)
        assert set(reachable(objects, PROMETHEUS, end(pod))) == scraped
        for other in (STRANGER, ELSEWHERE, OUTSIDE):
            assert set(reachable(objects, other, end(pod))) <= {"http"}


def test_the_api_server_is_reached_with_events_only(tmp_path: Path) -> None:
    objects = with_component("events", tmp_path)
    policies = of_kind(objects, "NetworkPolicy")
    for pod in pods(objects):
        assert all(allowed(policies, end(pod), API_SERVER, port) for port in (443, 6443))
        for target in (OUTSIDE, METADATA):
            assert not allowed(policies, end(pod), target, 443)
        for other in OTHERS:
            assert set(reachable(objects, other, end(pod))) <= {"http"}


def test_servers_of_ones_own_are_reached_on_their_ports(tmp_path: Path) -> None:
    objects = with_component("external-servers", tmp_path)
    policies = of_kind(objects, "NetworkPolicy")
    servers = End(namespace="servers")
    for pod in pods(objects):
        assert all(allowed(policies, end(pod), servers, port) for port in (2379, 4222))
        assert not allowed(policies, end(pod), servers, 443)


def test_the_benchmark_reaches_the_api_and_the_runners() -> None:
    objects = overlay("1p1d")
    (job,) = of_kind(build(K8S / "bench"), "Job")
    bench = End(job["spec"]["template"]["metadata"]["labels"])
    for pod in pods(objects):
        assert {"http", "health"} & set(end(pod).ports) <= set(reachable(objects, bench, end(pod)))


@pytest.mark.parametrize("layout", ["single-node", "1p1d", "multi-node"])
def test_the_token_closes_every_runner_s_pages(layout: str, tmp_path: Path) -> None:
    """components/status-token: a file of a Secret, for all pods, as each asks the others."""
    objects = with_component("status-token", tmp_path, layout)
    for pod in pods(objects):
        (named,) = (e for e in pod.container["env"] if e["name"] == "GLM47_STATUS_TOKEN_FILE")
        (mount,) = (m for m in pod.container["volumeMounts"] if named["value"].startswith(m["mountPath"]))
        (volume,) = (v for v in pod.spec["volumes"] if v["name"] == mount["name"])
        assert mount["readOnly"] is True and volume["secret"]["secretName"] == "glm47-status"
        assert "GLM47_STATUS_TOKEN" not in {e["name"] for e in pod.container["env"]}


def policy(**spec: object) -> list[Object]:
    return [{"kind": "NetworkPolicy", "metadata": {"name": "x"}, "spec": {"podSelector": {}, **spec}}]


def expression(operator: str, key: str, *values: str) -> Object:
    """A rule for pods of labels that a selector's expression chooses."""
    term = {"key": key, "operator": operator, **({"values": list(values)} if values else {})}
    return {"from": [{"podSelector": {"matchExpressions": [term]}}]}


@pytest.mark.parametrize(
    ("rule", "port", "passes"),
    [
        ({}, 1, True),
        ({"from": [{"podSelector": {}}]}, 1, True),
        ({"from": [{"podSelector": {"matchLabels": {"a": "c"}}}]}, 1, False),
        ({"from": [{"namespaceSelector": {}}]}, 1, True),
        ({"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "n"}}}]}, 1, False),
        ({"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}, 1, False),
        ({"ports": [{"port": 1}]}, 1, True),
        ({"ports": [{"port": 1, "protocol": "UDP"}]}, 1, False),
        ({"ports": [{"port": "web"}]}, 7, True),
        ({"ports": [{"port": "web"}]}, 8, False),
        ({"ports": [{"port": 1, "endPort": 9}]}, 9, True),
        ({"ports": [{"port": 1, "endPort": 9}]}, 10, False),
        (expression("NotIn", "a", "b"), 1, False),
        (expression("In", "a", "b"), 1, True),
        (expression("DoesNotExist", "z"), 1, True),
        (expression("Exists", "z"), 1, False),
    ],
)  # fmt: skip
def test_the_rules_are_read_as_kubernetes_reads_them(rule: Object, port: int, passes: bool) -> None:
    source, target = End({"a": "b"}), End({"c": "d"}, ports={"web": 7})
    made = policy(policyTypes=["Ingress"], ingress=[rule])
    assert allowed(made, source, target, port) is passes
    assert not allowed(policy(policyTypes=["Ingress"]), source, target, port)
    assert not allowed(policy(policyTypes=["Egress"], egress=[]), source, target, port)
