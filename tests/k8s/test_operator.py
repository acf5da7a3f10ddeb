"""The example for Dynamo's operator, in both versions of its resource."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from entrypoint.load import load_plan
from entrypoint.plan.releases import PINNED
from tests.k8s import schemas
from tests.k8s.manifests import Object, of_kind, operator_objects
from tests.k8s.test_manifests import GPUS, PAGES
from tests.k8s.test_valid import VERSIONS


def test_operator_example_is_valid() -> None:
    for version in VERSIONS:
        for resource in operator_objects():
            schemas.check(resource, version)


def graph_containers(graph: Object) -> Iterator[tuple[str, list[Object], Object, Object]]:
    """Of each part of a graph deployment: role, variables, pod and container."""
    spec = graph["spec"]
    if graph["apiVersion"].endswith("v1beta1"):
        for part in spec["components"]:
            pod = part["podTemplate"]["spec"]
            (main,) = pod["containers"]
            yield part["name"], [*spec["env"], *main["env"]], pod, main
        return
    for name, part in spec["services"].items():
        pod = part["extraPodSpec"]
        main = {**pod["mainContainer"], **{k: part[k] for k in ("livenessProbe", "readinessProbe")}}
        yield name.lower(), [*spec["envs"], *part["envs"]], pod, main


DEFAULT = {"DYN_DISCOVERY_BACKEND": "kubernetes", "DYN_NAMESPACE": "default-glm47", "POD_NAME": "a"}
"""What the operator injects where its chart has brought neither etcd nor NATS."""
WITH_SERVERS = {
    **DEFAULT,
    "ETCD_ENDPOINTS": "http://dynamo-platform-etcd:2379",
    "NATS_SERVER": "nats://dynamo-platform-nats:4222",
}
GRAPHS = [found for found in operator_objects() if found["kind"] == "DynamoGraphDeployment"]


@pytest.mark.parametrize("injected", [DEFAULT, WITH_SERVERS], ids=["default", "servers"])
@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: str(graph["apiVersion"]))
def test_operator_example_is_what_the_runner_plans(graph: Object, injected: Mapping[str, str]) -> None:
    """With what the operator injects beside: the same plan checks as for our own pods."""
    claims = {found["metadata"]["name"] for found in of_kind(operator_objects(), "PersistentVolumeClaim")}
    found = list(graph_containers(graph))
    assert [role for role, *_ in found] == ["frontend", "prefill", "decode"]
    for role, entries, pod, main in found:
        variables = {**injected, **{e["name"]: e["value"] for e in entries}}
        variables |= {"DYN_HTTP_PORT": "8000"} if role == "frontend" else {"DYN_SYSTEM_PORT": "9090"}
        plan = load_plan(variables, Path("/nonexistent")).plan
        assert plan.roles == (role,) and not plan.warnings
        (process,) = plan.processes
        assert "DYN_NAMESPACE" not in process.env
        assert process.env["DYN_STORE_KV"] == "mem"
        assert [gate.name for gate in plan.gates] == (["nats-server"] if "NATS_SERVER" in injected else [])
        probes = (main["startupProbe"], main["livenessProbe"], main["readinessProbe"])
        assert tuple(p["httpGet"]["path"] for p in probes) == PAGES
        assert {p["httpGet"]["port"] for p in probes} == {plan.health.number}
        assert pod["terminationGracePeriodSeconds"] >= plan.stop_timeout + 10
        mounted = {m["name"]: m["mountPath"] for m in main["volumeMounts"]}
        if role == "frontend":
            assert set(mounted) == {"scratch", "model"} and "tolerations" not in pod
            continue
        assert {p.number for p in plan.ports if p.name == "system"} == {9090}
        assert process.drain is not None and process.drain.withdraw is None
        assert process.env["TRITON_CACHE_DIR"].startswith(mounted["cache"])
        (cache_claim,) = [v["persistentVolumeClaim"] for v in pod["volumes"] if v["name"] == "cache"]
        assert cache_claim["claimName"] in claims and role in cache_claim["claimName"]
        assert [toleration["key"] for toleration in pod["tolerations"]] == [GPUS]


def test_operator_is_told_the_runtime_version_where_it_looks_for_one() -> None:
    """1.4 and newer read it out of the image's tag, which is the runner's own version."""
    newer = next(graph for graph in GRAPHS if graph["apiVersion"].endswith("v1beta1"))
    assert {part["runtimeVersionOverride"] for part in newer["spec"]["components"]} == {PINNED["dynamo"]}
    (older,) = [graph for graph in GRAPHS if graph is not newer]
    assert all("runtimeVersionOverride" not in part for part in older["spec"]["services"].values())


def test_policies_of_the_operator_example_select_what_the_operator_labels() -> None:
    """Its labels, from deploy/operator/internal/consts of ai-dynamo/dynamo."""
    graph = {"nvidia.com/dynamo-graph-deployment-name": GRAPHS[0]["metadata"]["name"]}
    frontend = {**graph, "nvidia.com/dynamo-component-type": "frontend"}
    objects = operator_objects()
    inside, api = (p["spec"] for p in of_kind(objects, "NetworkPolicy"))
    assert inside["podSelector"]["matchLabels"] == graph and inside["policyTypes"] == ["Ingress"]
    assert api["podSelector"]["matchLabels"] == frontend and api["ingress"] == [{"ports": [{"port": 8000}]}]
    (budget,) = of_kind(objects, "PodDisruptionBudget")
    assert budget["spec"]["selector"]["matchLabels"] == frontend
