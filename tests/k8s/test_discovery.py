"""Workers listed by the cluster's API server: components/kubernetes-discovery on the layouts."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from entrypoint.load import load_plan
from entrypoint.plan.types import FrontendProbe
from tests.k8s import schemas
from tests.k8s.manifests import (
    K8S,
    LAYOUTS,
    Object,
    environ,
    known_of_itself,
    named,
    of_kind,
    pods,
    selects,
    with_component,
)

VERSIONS = ("1.32", "1.37")
"""The oldest Kubernetes with resource claims as multi-node has them, and the newest."""
ACCOUNT = "glm47-discovery"
DEFINITION = K8S / "components/kubernetes-discovery/dynamoworkermetadata.yaml"
LABEL = "nvidia.com/dynamo-discovery-"
FOUND_BY = {f"{LABEL}backend": "kubernetes", f"{LABEL}enabled": "true"}
"""The labels of EndpointSlices that Dynamo reads: lib/runtime/src/discovery/kube of ai-dynamo/dynamo."""
ITSELF = {
    "POD_NAME": "metadata.name",
    "POD_NAMESPACE": "metadata.namespace",
    "POD_UID": "metadata.uid",
}


@pytest.fixture(scope="module", params=[layout for layout in LAYOUTS if layout != "single-node"])
def objects(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    return with_component("kubernetes-discovery", tmp_path_factory.mktemp("discovery"), request.param)


def test_they_are_valid(objects: list[Object]) -> None:
    definition = yaml.safe_load(DEFINITION.read_text())
    for version in VERSIONS:
        for each in (*objects, definition):
            schemas.check(each, version)


def test_no_server_of_ours_is_left(objects: list[Object]) -> None:
    assert not [o for o in objects if o["metadata"]["name"] in ("glm47-etcd", "glm47-nats")]
    (settings,) = of_kind(objects, "ConfigMap")
    assert settings["data"]["DYN_DISCOVERY_BACKEND"] == "kubernetes"
    assert not {"ETCD_ENDPOINTS", "NATS_SERVER"} & settings["data"].keys()


def test_every_pod_may_ask_the_api_server_and_knows_itself(objects: list[Object]) -> None:
    for pod in pods(objects):
        assert pod.spec["serviceAccountName"] == ACCOUNT
        assert pod.spec["automountServiceAccountToken"] is True
        assert known_of_itself(pod).items() >= ITSELF.items()
        policies = [
            policy["spec"]
            for policy in of_kind(objects, "NetworkPolicy")
            if selects(policy["spec"]["podSelector"]["matchLabels"], pod.labels)
        ]
        out = [rule for policy in policies for rule in policy.get("egress", [])]
        assert any({443, 6443} == {port["port"] for port in rule.get("ports", [])} for rule in out)


def test_the_account_may_do_no_more_than_that(objects: list[Object]) -> None:
    """Its rights are what Dynamo 1.3.1 and 1.6.1 ran with; nothing of other kinds, or of a whole cluster."""
    assert not of_kind(objects, "ClusterRole") and not of_kind(objects, "ClusterRoleBinding")
    may = {
        (group, kind): set(rule["verbs"])
        for rule in named(objects, "Role", ACCOUNT)["rules"]
        for group in rule["apiGroups"]
        for kind in rule["resources"]
    }
    assert may == {
        ("discovery.k8s.io", "endpointslices"): {"list", "watch"},
        ("nvidia.com", "dynamoworkermetadatas"): {"list", "watch", "create", "patch"},
    }
    binding = named(objects, "RoleBinding", ACCOUNT)
    assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) == ("Role", ACCOUNT)
    assert {"kind": "ServiceAccount", "name": ACCOUNT} in binding["subjects"]
    assert named(objects, "ServiceAccount", ACCOUNT)["automountServiceAccountToken"] is False


def test_the_list_has_ready_workers_only(objects: list[Object]) -> None:
    """Dynamo reads readiness from the slices of Services with its labels: exactly one Service has them."""
    (service,) = (
        s for s in of_kind(objects, "Service") if FOUND_BY.items() <= s["metadata"]["labels"].items()
    )
    assert not service["spec"].get("publishNotReadyAddresses")
    for pod in pods(objects):
        assert selects(service["spec"]["selector"], pod.labels)


def test_the_entry_is_of_the_kind_that_the_account_may_write() -> None:
    definition = yaml.safe_load(DEFINITION.read_text())
    spec = definition["spec"]
    assert definition["metadata"]["name"] == f"{spec['names']['plural']}.{spec['group']}"
    assert (spec["group"], spec["names"]["plural"]) == ("nvidia.com", "dynamoworkermetadatas")
    assert [v["name"] for v in spec["versions"] if v["served"] and v["storage"]] == ["v1alpha1"]


def test_the_runner_waits_for_no_server(objects: list[Object], tmp_path: Path) -> None:
    for pod in pods(objects):
        plan = load_plan(environ(pod, objects), tmp_path).plan
        assert not plan.gates and not plan.warnings
        (process,) = plan.processes
        assert "ETCD_ENDPOINTS" not in process.env and "NATS_SERVER" not in process.env
        if isinstance(process.ready, FrontendProbe):
            assert (process.ready.backend, process.ready.prefill) == (1, 1)
        else:
            # Its pod's readiness takes a leader off the list; what it has in hand it still answers.
            assert plan.rank > 0 or (process.drain is not None and process.drain.withdraw is None)
