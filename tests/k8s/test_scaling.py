"""components/hpa and components/keda: the same numbers for both, and what they name is there."""

from __future__ import annotations

import re
from typing import Any

import pytest

from entrypoint.plan.roles import worker
from tests.k8s.manifests import Object, named, of_kind, pods, with_component

ROLES = ("decode", "prefill")
START = 20 * 60
"""Seconds that a worker takes to load, with warm caches (docs/benchmarks.md)."""
LONGEST = {"periodSeconds": 1800, "stabilizationWindowSeconds": 3600}
"""What Kubernetes' API takes; its schema does not say so."""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Object]]:
    return {name: with_component(name, tmp_path_factory.mktemp(name), "1p2d") for name in ("hpa", "keda")}


def scaler(both: dict[str, list[Object]], name: str, role: str) -> Any:
    kind = {"hpa": "HorizontalPodAutoscaler", "keda": "ScaledObject"}[name]
    return named(both[name], kind, f"glm47-{role}")["spec"]


def behavior(both: dict[str, list[Object]], name: str, role: str) -> Any:
    found = scaler(both, name, role)
    return found.get("behavior") or found["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]


@pytest.mark.parametrize("name", ["hpa", "keda"])
@pytest.mark.parametrize("role", ROLES)
def test_it_scales_the_workers_whose_pods_have_that_role(
    name: str, role: str, both: dict[str, list[Object]]
) -> None:
    target = scaler(both, name, role)["scaleTargetRef"]
    found = named(both[name], target["kind"], target["name"])
    assert found["apiVersion"] == target["apiVersion"]
    # Whoever applies the manifests again must not set the number back.
    assert "replicas" not in found["spec"]
    (made,) = (p for p in pods(both[name]) if p.owner == target["name"])
    assert {"name": "ROLE", "value": role} in made.container["env"]


def test_the_metric_is_the_one_that_the_runner_watches_engines_by(both: dict[str, list[Object]]) -> None:
    """tests/k8s/test_pods.py finds it in the pods, tests/engine with SGLang."""
    for role, component in zip(ROLES, ("backend", "prefill"), strict=True):
        (metric,) = scaler(both, "hpa", role)["metrics"]
        assert metric["pods"]["metric"]["name"] == worker.IN_FLIGHT
        (trigger,) = scaler(both, "keda", role)["triggers"]
        found = re.fullmatch(r"sum\((\w+){(.*)}\)", trigger["metadata"]["query"])
        assert found is not None and found[1] == worker.IN_FLIGHT
        labels = dict(re.findall(r'(\w+)="(\w+)"', found[2]))
        assert labels.pop("namespace") and labels.pop("dynamo_namespace") == "dynamo"
        assert labels == {"dynamo_component": component, "dynamo_endpoint": "generate"}


@pytest.mark.parametrize("role", ROLES)
def test_both_have_the_same_numbers(role: str, both: dict[str, list[Object]]) -> None:
    assert behavior(both, "hpa", role) == behavior(both, "keda", role)
    hpa, keda = (scaler(both, name, role) for name in ("hpa", "keda"))
    assert (hpa["minReplicas"], hpa["maxReplicas"]) == (keda["minReplicaCount"], keda["maxReplicaCount"])
    target = hpa["metrics"][0]["pods"]["target"]
    (trigger,) = keda["triggers"]
    assert target["type"] == trigger["metricType"] == "AverageValue"
    assert target["averageValue"] == trigger["metadata"]["threshold"]


@pytest.mark.parametrize("role", ROLES)
def test_it_goes_no_faster_than_workers_start_and_stop(role: str, both: dict[str, list[Object]]) -> None:
    """One at a time: no second one before the first can serve, and none goes while another still drains."""
    found = behavior(both, "hpa", role)
    for direction in found.values():
        (policy,) = direction["policies"]
        assert (policy["type"], policy["value"]) == ("Pods", 1)
        assert policy["periodSeconds"] <= LONGEST["periodSeconds"]
        assert direction["stabilizationWindowSeconds"] <= LONGEST["stabilizationWindowSeconds"]
    assert found["scaleUp"]["policies"][0]["periodSeconds"] >= START
    assert found["scaleDown"]["stabilizationWindowSeconds"] >= START
    (made,) = (p for p in pods(both["hpa"]) if p.owner == f"glm47-{role}")
    assert found["scaleDown"]["policies"][0]["periodSeconds"] > made.spec["terminationGracePeriodSeconds"]


def test_there_is_one_scaler_of_each_role(both: dict[str, list[Object]]) -> None:
    assert len(of_kind(both["hpa"], "HorizontalPodAutoscaler")) == len(ROLES)
    assert len(of_kind(both["keda"], "ScaledObject")) == len(ROLES)
