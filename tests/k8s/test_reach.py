"""Who reaches whom, and what no object of the manifests lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.k8s.manifests import OVERLAYS, of_kind, overlay, pods, selects, with_component

OWN = {
    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "glm47", "app.kubernetes.io/instance": "glm47"}}
}
"""This deployment's pods, as a policy names them."""


@pytest.mark.parametrize("name", OVERLAYS)
def test_only_the_api_is_reachable(name: str) -> None:
    """Every pod lets in this deployment's pods only; the frontend's API is the exception."""
    objects = overlay(name)
    policies = of_kind(objects, "NetworkPolicy")
    for pod in pods(objects):
        component = pod.labels["app.kubernetes.io/component"]
        on_pod = [p["spec"] for p in policies if selects(p["spec"]["podSelector"]["matchLabels"], pod.labels)]
        assert any("Ingress" in p["policyTypes"] for p in on_pod)
        assert any("Egress" in p["policyTypes"] for p in on_pod)
        for rule in (r for p in on_pod for r in p.get("ingress", [])):
            if "from" in rule:
                assert rule["from"] == [OWN]
            else:
                assert component == "frontend" and rule["ports"] == [{"port": "http"}]


@pytest.mark.parametrize("name", OVERLAYS)
def test_name_servers_are_reachable_where_clusters_have_them(name: str) -> None:
    """Outside of this deployment, nothing else is."""
    policies = [p["spec"] for p in of_kind(overlay(name), "NetworkPolicy")]
    (names,) = (rule for p in policies for rule in p.get("egress", []) if rule["to"] != [OWN])
    assert {(port["port"], port["protocol"]) for port in names["ports"]} == {
        (number, protocol) for number in (53, 5353) for protocol in ("TCP", "UDP")
    }
    spaces, node = names["to"]
    (term,) = spaces["namespaceSelector"]["matchExpressions"]
    assert term["values"] == ["kube-system", "openshift-dns"]
    assert node == {"ipBlock": {"cidr": "169.254.20.10/32"}}


@pytest.mark.parametrize("name", OVERLAYS)
def test_memory_has_a_limit_and_a_lost_pod_holds_no_drain_up(name: str) -> None:
    objects = overlay(name)
    for pod in pods(objects):
        assert pod.container["resources"]["limits"]["memory"], pod.name
        assert "cpu" not in pod.container["resources"]["limits"], pod.name
    budgets = of_kind(objects, "PodDisruptionBudget")
    assert {b["spec"]["unhealthyPodEvictionPolicy"] for b in budgets} == {"AlwaysAllow"}
    for o in objects:
        assert o["metadata"]["labels"]["app.kubernetes.io/part-of"] == "glm47-runner", o["metadata"]


def test_prometheus_may_reach_every_port_that_it_is_told_to_scrape(tmp_path: Path) -> None:
    objects = with_component("monitoring", tmp_path)
    (monitor,) = (o["spec"] for o in of_kind(objects, "PodMonitor"))
    (policy,) = (
        p["spec"] for p in of_kind(objects, "NetworkPolicy") if p["metadata"]["name"] == "glm47-metrics"
    )
    opened = {port["port"] for port in policy["ingress"][0]["ports"]}
    for port in (endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]):
        having = [p for p in pods(objects) if port in {q["name"] for q in p.container["ports"]}]
        assert having, port
        # The API is open to everybody.
        assert port in opened or {p.labels["app.kubernetes.io/component"] for p in having} == {"frontend"}
