"""The check of custom resources refuses what it is there for; with definitions from files too."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.k8s import definitions, schemas
from tests.k8s.chart import render
from tests.k8s.manifests import Object, operator_objects, overlay, with_component

VERSION = "1.37"
ABSENT = ...
"""In place of a value: the field is left out."""
GROUP = ("spec", "leaderWorkerTemplate")
POD = (*GROUP, "workerTemplate")
ENDPOINT = ("spec", "endpoints", 0)
ALERT = ("spec", "groups", 0, "rules", 0)
DECODE = ("spec", "services", "Decode")
LWS, DOMAIN, GRAPH = "LeaderWorkerSet", "ComputeDomain", "DynamoGraphDeployment"
NEWER_GRAPH, PART = f"{GRAPH} v1beta1", ("spec", "components", 2)
ROUTE, POOL, RULES = "HTTPRoute", "InferencePool", ("spec", "rules", 0)
MONITOR, PODS, RULE = "ServiceMonitor", "PodMonitor", "PrometheusRule"
SCALER, TRIGGER = "ScaledObject", ("spec", "triggers", 0)
CREDENTIALS = "TriggerAuthentication"
BEHAVIOR = ("spec", "advanced", "horizontalPodAutoscalerConfig", "behavior")

WRONG = [
    (LWS, ("metadata", "lables"), {}, "lables"),
    (LWS, (*GROUP, "replicaz"), 1, "replicaz"),
    (LWS, (*GROUP, "size"), "2", "'2'"),
    (LWS, (*GROUP, "restartPolicy"), "Always", "Always"),
    (LWS, (*GROUP, "workerTemplate"), ABSENT, "workerTemplate"),
    (LWS, (*POD, "metadata", "generateName"), "x", "generateName"),
    (LWS, (*POD, "spec", "enableServiceLink"), False, "enableServiceLink"),
    (LWS, (*POD, "spec", "containers"), ABSENT, "containers"),
    (LWS, (*GROUP, "volumeClaimTemplates", 0, "spec", "accessModes"), "ReadWriteOnce", "ReadWriteOnce"),
    (DOMAIN, ("apiVersion",), "resource.nvidia.com/v1beta2", "v1beta2"),
    (DOMAIN, ("spec", "numNode"), 3, "numNode"),
    (DOMAIN, ("spec", "numNodes"), "3", "'3'"),
    (DOMAIN, ("spec", "numNodes"), ABSENT, "numNodes"),
    (DOMAIN, ("spec", "channel", "resourceClaimTemplate"), {}, "name"),
    (DOMAIN, ("spec", "channel", "allocationMode"), "One", "One"),
    (MONITOR, ("spec", "podTargetLabel"), [], "podTargetLabel"),
    (MONITOR, ("spec", "selector", "matchLabel"), {}, "matchLabel"),
    (MONITOR, ("spec", "endpoints"), ABSENT, "endpoints"),
    (MONITOR, (*ENDPOINT, "prot"), "health", "prot"),
    (MONITOR, (*ENDPOINT, "port"), 9480, "9480"),
    (MONITOR, (*ENDPOINT, "interval"), "15 s", "15 s"),
    (MONITOR, (*ENDPOINT, "path"), None, "None"),
    (PODS, ("spec", "selector"), ABSENT, "selector"),
    (PODS, ("spec", "endpoints"), [], "endpoints"),
    (PODS, ("spec", "podMetricsEndpoints", 0, "port"), 8081, "8081"),
    (RULE, ("spec", "group"), [], "group"),
    (RULE, (*ALERT, "expression"), "up", "expression"),
    (RULE, (*ALERT, "for"), "2 m", "2 m"),
    (RULE, (*ALERT, "labels", "severity"), 1, "1 is not"),
    (SCALER, ("spec", "scaleTargetRef", "name"), ABSENT, "name"),
    (SCALER, ("spec", "minReplicas"), 1, "minReplicas"),
    (SCALER, ("spec", "maxReplicaCount"), "4", "'4'"),
    (SCALER, (*TRIGGER, "metadata", "threshold"), 48, "48"),
    (SCALER, (*TRIGGER, "metadata", "query"), ABSENT, "query"),
    (SCALER, (*TRIGGER, "metricType"), "Average", "Average"),
    (SCALER, (*BEHAVIOR, "scaleUp", "policies", 0, "period"), 1, "period"),
    (SCALER, (*BEHAVIOR, "scaleDown", "policies", 0, "value"), ABSENT, "value"),
    (SCALER, (*TRIGGER, "metadata", "authModes"), "token", "token"),
    (SCALER, (*TRIGGER, "authenticationRef", "names"), "x", "names"),
    (SCALER, ("spec", "triggers"), [], "[]"),
    (CREDENTIALS, ("spec", "secretTargetRef", 0, "key"), ABSENT, "key"),
    (CREDENTIALS, ("spec", "secretTargetRef", 0, "parameter"), "token", "token"),
    (CREDENTIALS, ("spec", "secretRef"), [], "secretRef"),
    (GRAPH, ("spec", "backendFramework"), "sgl", "sgl"),
    (GRAPH, (*DECODE, "replicas"), "1", "'1'"),
    (GRAPH, (*DECODE, "resources", "limits", "gpu"), 4, "4"),
    (GRAPH, (*DECODE, "multinode"), {}, "nodeCount"),
    (GRAPH, (*DECODE, "sharedMemory", "size"), "32 GB", "32 GB"),
    (GRAPH, (*DECODE, "startupProbe"), {}, "startupProbe"),
    (GRAPH, (*DECODE, "livenessProbe", "httpGet", "port"), ABSENT, "port"),
    (GRAPH, (*DECODE, "envs", 0, "name"), ABSENT, "name"),
    (GRAPH, (*DECODE, "extraPodSpec", "mainContainer", "arg"), [], "arg"),
    (GRAPH, (*DECODE, "extraPodSpec", "volume"), [], "volume"),
    (NEWER_GRAPH, ("spec", "services"), {}, "services"),
    (NEWER_GRAPH, ("spec", "envs"), [], "envs"),
    (NEWER_GRAPH, (*PART, "componentType"), "worker", "componentType"),
    (NEWER_GRAPH, (*PART, "type"), "decoder", "decoder"),
    (NEWER_GRAPH, (*PART, "runtimeVersionOverride"), "0.8", "0.8"),
    (NEWER_GRAPH, (*PART, "runtimeVersionOverride"), ABSENT, "runtimeVersionOverride"),
    (NEWER_GRAPH, (*PART, "sharedMemorySize"), "32 GB", "32 GB"),
    (NEWER_GRAPH, (*PART, "podTemplate", "spec", "toleration"), [], "toleration"),
    (ROUTE, ("spec", "hostname"), [], "hostname"),
    (ROUTE, ("spec", "parentRefs", 0, "name"), ABSENT, "name"),
    (ROUTE, ("spec", "hostnames", 0), "GLM.example.com", "GLM"),
    (ROUTE, (*RULES, "timeouts", "request"), "10 s", "10 s"),
    (ROUTE, (*RULES, "backendRefs", 0, "port"), "http", "http"),
    (POOL, ("spec", "extensionRef"), {}, "extensionRef"),
    (POOL, ("spec", "endpointPickerRef"), ABSENT, "endpointPickerRef"),
    (POOL, ("spec", "targetPorts", 0, "number"), "http", "http"),
]


@pytest.fixture(scope="session")
def resources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Object]:
    """One of k8s/ of every custom kind."""
    found = {}
    monitored = with_component("monitoring", tmp_path_factory.mktemp("monitoring"))
    gateway = {"enabled": True, "parentRefs": [{"name": "gateway"}], "hostnames": ["glm.example.com"]}
    routed = render({"route": gateway, "inferencePool": {"enabled": True, "endpointPicker": "picker"}})
    scaled = with_component("keda-auth", tmp_path_factory.mktemp("keda"))
    for resource in (*overlay("multi-node"), *monitored, *scaled, *operator_objects(), *routed):
        if schemas.name(resource) in schemas.declared():
            found[schemas.name(resource)] = resource
    assert set(found) == set(schemas.declared())
    return found


def changed(resource: Object, path: tuple[str | int, ...], value: Any) -> Object:
    """A copy with one value set, or without it."""
    result = copy.deepcopy(resource)
    at: Any = result
    for key in path[:-1]:
        at = at[key]
    if value is ABSENT:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return result


@pytest.mark.parametrize(("kind", "path", "value", "complaint"), WRONG, ids=str)
def test_refuses(
    resources: dict[str, Object], kind: str, path: tuple[str | int, ...], value: Any, complaint: str
) -> None:
    """A field misspelt, of a wrong type or missing; in a kind's own part and in Kubernetes' types."""
    schemas.check(resources[kind], VERSION)
    with pytest.raises(jsonschema.ValidationError) as refused:
        schemas.check(changed(resources[kind], path, value), VERSION)
    assert complaint in refused.value.message


@pytest.mark.parametrize(
    ("kind", "path", "value", "complaint"), [w for w in WRONG if w[0] in (MONITOR, PODS, RULE)], ids=str
)
def test_published_definition_refuses_by_itself(
    resources: dict[str, Object],
    kind: str,
    path: tuple[str | int, ...],
    value: Any,
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The whole of what prometheus-operator publishes, without the fields of crds.yaml."""
    monkeypatch.delenv(definitions.DIRECTORY, raising=False)
    (schema,) = definitions.published(kind, "monitoring.coreos.com/v1")
    validator = jsonschema.Draft4Validator(schema)
    validator.validate(resources[kind])
    with pytest.raises(jsonschema.ValidationError, match=complaint):
        validator.validate(changed(resources[kind], path, value))


# -- definitions in GLM47_CRD_DIR


def definition(kind: str, api_version: str, spec: Object, **more: Any) -> Object:
    """A CustomResourceDefinition, made up for these tests."""
    group, _, version = api_version.partition("/")
    schema = {
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
        },
    }
    served = {"name": version, "served": True, "schema": {"openAPIV3Schema": schema}, **more}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "spec": {"group": group, "names": {"kind": kind}, "versions": [served]},
    }


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "definitions"
    found.mkdir()
    monkeypatch.setenv(definitions.DIRECTORY, str(found))
    return found


DOMAIN_SPEC = {
    "type": "object",
    "required": ["numNodes"],
    "properties": {
        "numNodes": {"type": "integer", "maximum": 6},
        "channel": {
            "type": "object",
            "properties": {"resourceClaimTemplate": {"type": "object", "properties": {"name": {}}}},
        },
    },
}


@pytest.mark.parametrize("listed", [False, True])
def test_definition_of_a_file_counts(resources: dict[str, Object], directory: Path, listed: bool) -> None:
    """Beside crds.yaml, which lets all of these pass; however kubectl printed it."""
    made = definition(DOMAIN, "resource.nvidia.com/v1beta1", DOMAIN_SPEC)
    other = {"apiVersion": "v1", "kind": "ConfigMap"}
    documents = (
        [{"apiVersion": "v1", "kind": "List", "items": [other, made]}] if listed else [None, other, made]
    )
    (directory / "all.yaml").write_text(yaml.safe_dump_all(documents))
    good = resources[DOMAIN]
    schemas.check(good, VERSION)
    for path, value, complaint in (
        (("spec", "numNodes"), 7, "maximum"),
        (("spec", "channel", "allocationMode"), "All", "allocationMode"),
    ):
        with pytest.raises(jsonschema.ValidationError, match=complaint):
            schemas.check(changed(good, path, value), VERSION)


@pytest.mark.parametrize("served", [True, False])
def test_kind_without_its_definition_fails(
    resources: dict[str, Object], directory: Path, served: bool
) -> None:
    """A check against definitions that are not there must not pass: another kind's, or not served."""
    kind, version = (
        (LWS, "leaderworkerset.x-k8s.io/v1") if served else (DOMAIN, "resource.nvidia.com/v1beta1")
    )
    (directory / "one.yml").write_text(yaml.safe_dump(definition(kind, version, DOMAIN_SPEC, served=served)))
    with pytest.raises(AssertionError, match=r"cannot check ComputeDomain of resource.nvidia.com/v1beta1: "):
        schemas.check(resources[DOMAIN], VERSION)


@pytest.mark.parametrize(
    ("schema", "takes", "refuses"),
    [
        ({"type": "object"}, [{}], [{"any": 1}, [], None]),
        ({"type": "object", "x-kubernetes-preserve-unknown-fields": True}, [{}, {"any": 1}], [1]),
        (
            {
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": True,
                "properties": {"known": {"type": "object", "properties": {"a": {"type": "string"}}}},
            },
            [{"any": 1}, {"known": {"a": "x"}}],
            [{"known": {"b": "x"}}],
        ),
        (
            {"type": "object", "x-kubernetes-embedded-resource": True, "properties": {"spec": {}}},
            [{"apiVersion": "v1", "kind": "x", "metadata": {"name": "x"}, "spec": 1}],
            [{"specs": 1}],
        ),
        ({"type": "object", "additionalProperties": {"type": "string"}}, [{"a": "x"}], [{"a": 1}]),
        (
            {"type": "array", "items": {"type": "object", "required": ["a"], "properties": {"a": {}}}},
            [[{"a": 1}]],
            [[{"a": 1, "b": 1}], [{}]],
        ),
        (
            {
                "anyOf": [{"type": "integer"}, {"type": "string"}],
                "pattern": "^[0-9]+Gi$",
                "x-kubernetes-int-or-string": True,
            },
            [1, "1Gi"],
            [1.5, True, "1 GB", None],
        ),
        ({"type": "integer", "minimum": 0, "exclusiveMinimum": True}, [1], [0, "1"]),
        ({"type": "string", "nullable": True}, ["x", None], [1]),
    ],
)
def test_definitions_are_strict(schema: Object, takes: list[Any], refuses: list[Any]) -> None:
    """What OpenAPI's and Kubernetes' words in a definition mean."""
    validator = jsonschema.Draft4Validator(definitions.strict(schema))
    for value in takes:
        validator.validate(value)
    for value in refuses:
        with pytest.raises(jsonschema.ValidationError):
            validator.validate(value)
