"""The Helm chart makes what kustomize makes, takes right values and refuses wrong ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.k8s import chart, chart_files
from tests.k8s.chart import comparable, is_hook, render, values
from tests.k8s.manifests import (
    IN_GROUPS,
    K8S,
    LAYOUTS,
    Object,
    built,
    environ,
    named,
    of_kind,
    overlay,
    pods,
    templates,
    with_component,
)
from tests.k8s.test_deployments import endpoints, share_nothing
from tests.k8s.test_overlays import FITTING

WORKER = yaml.safe_load((K8S / "components/workers-example/worker.yaml").read_text())["spec"]["template"][
    "spec"
]
COMPONENTS: dict[str, Object] = {
    "monitoring": {"monitoring": {"enabled": True}},
    "external-servers": {"externalServers": {"enabled": True}},
    "without-nats": {"servers": {"nats": False}},
    "etcd-tls": {"servers": {"etcdTls": True}},
    "nats-auth": {"servers": {"natsAuth": True}},
    "nats-tls": {"servers": {"natsTls": True}},
    "kubernetes-discovery": {"kubernetesDiscovery": True},
    "rdma": {"rdma": True},
    "nvlink-domain": {"nvlinkDomain": True},
    "events": {"events": True},
    "status-token": {"statusToken": {"enabled": True}},
    "hpa": {"autoscaling": {"by": "hpa"}},
    "keda": {"autoscaling": {"by": "keda"}},
    "keda-auth": {"autoscaling": {"by": "keda", "authModes": "bearer"}},
    "workers-example": {role: {"podPatch": WORKER} for role in ("single", "prefill", "decode")},
}
IN_LAYOUTS = {"decode-group", "group-names", "labels", "mocker", "pod", "prefill-group"}
"""The components that layouts are made of; the others are for a person to choose, here by a value."""
EVERYTHING: Object = {
    "imagePullSecrets": [{"name": "registry"}],
    "image": {
        "repository": "registry.example.com/glm47-runner",
        "tag": "1.2.3",
        "pullPolicy": "IfNotPresent",
    },
    "pods": {
        "annotations": {"example.com/a": "b"},
        "labels": {"example.com/team": "inference"},
        "priorityClassName": "inference",
        "nodeSelector": {"kubernetes.io/arch": "arm64"},
        "tolerations": [{"key": "kubernetes.io/arch", "value": "arm64", "effect": "NoSchedule"}],
    },
    "settings": {"GLM47_LOG_FORMAT": "json", "GLM47_STOP_TIMEOUT": 100},
    "env": {"NCCL_DEBUG": "INFO"},
    "servers": {"storageClassName": "quick"},
    **{
        role: {
            "cache": {"storageClassName": "local", "size": "50Gi"},
            "resources": {"limits": {"rdma/ib": 4}},
        }
        for role in ("prefill", "decode", "single")
    },
    "model": {
        "claim": "files",
        "create": True,
        "storageClassName": "shared",
        "download": {"enabled": True, "image": "hub:1", "command": ["fetch"], "secret": "hub"},
    },
    "route": {"enabled": True, "parentRefs": [{"name": "gateway"}], "hostnames": ["glm.example.com"]},
    "inferencePool": {"enabled": True, "endpointPicker": "picker"},
    "monitoring": {"enabled": True},
    "events": True,
    "apiServer": {"networks": ["10.1.2.3/32"], "ports": [8443]},
    "statusToken": {"enabled": True, "secret": "pages"},
}
SCALED: Object = {
    "autoscaling": {"prometheus": "https://prometheus.example.com"},
    "prefill": {"nodes": 2, "autoscaling": {"minReplicas": 2, "maxReplicas": 6, "inFlight": 5}},
    "decode": {"autoscaling": {"maxReplicas": 2, "inFlight": 70}},
    "kubernetesDiscovery": True,
    "apiServer": EVERYTHING["apiServer"],
}


def test_files_are_kustomizes() -> None:
    """`python -m tests.k8s.chart_files` after a change of k8s/, of the settings or of values.yaml."""
    for name, text in chart_files.files().items():
        assert (chart.CHART / "files" / name).read_text() == text, name
    assert (chart.CHART / "values.schema.json").read_text() == chart_files.schema()
    assert (chart.CHART / "README.md").read_text() == chart_files.readme()


def test_helm_finds_no_fault() -> None:
    for layout in LAYOUTS:
        report = chart.helm().lint(chart.CHART, values(layout), strict=True)
        # An icon is recommended.
        assert not report["errors"] and all(m["severity"] < 2 for m in report["messages"]), report


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_kustomizes(layout: str) -> None:
    assert comparable(render(values(layout))) == comparable(overlay(layout))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_mocker_is_kustomizes(layout: str) -> None:
    assert comparable(render(values(layout), {"mocker": True})) == comparable(overlay(f"mocker/{layout}"))


@pytest.mark.parametrize(
    ("component", "layout"), [(c, layout) for c, layouts in FITTING.items() for layout in layouts]
)
def test_a_component_is_kustomizes(component: str, layout: str, tmp_path: Path) -> None:
    theirs = with_component(component, tmp_path, layout)
    for domain in of_kind(theirs, "ComputeDomain"):
        # kustomize's is set by hand; the chart counts.
        workers = [p for p in pods(theirs) if p.owner in ("glm47-prefill", "glm47-decode")]
        domain["spec"]["numNodes"] = len(workers)
    assert comparable(render(values(layout), COMPONENTS[component])) == comparable(theirs)


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "single-node"])
def test_events_and_discovery_are_kustomizes_together(layout: str, tmp_path: Path) -> None:
    """A pod has one account: that of events, which may then do both."""
    components = [f"../components/{name}" for name in ("kubernetes-discovery", "events")]
    theirs = built(tmp_path, {"resources": [f"../{layout}"], "components": components})
    ours = render(values(layout), {"kubernetesDiscovery": True, "events": True})
    assert comparable(ours) == comparable(theirs)


def test_accounts_are_the_releases_own() -> None:
    for given in (
        {"events": True},
        {"kubernetesDiscovery": True},
        {"kubernetesDiscovery": True, "events": True},
    ):
        objects = [o for o in render(given, release="blue") if not is_hook(o)]
        accounts = {o["metadata"]["name"] for o in of_kind(objects, "ServiceAccount")}
        assert len(accounts) == len(given)
        for pod in pods(objects):
            assert pod.spec["serviceAccountName"] in accounts
        for binding in of_kind(objects, "RoleBinding"):
            names = {subject["name"] for subject in binding["subjects"]}
            assert names & accounts and all(name.startswith("blue-glm47-") for name in names)
            named(objects, "Role", binding["roleRef"]["name"])


@pytest.mark.parametrize("name", ["hpa", "keda"])
def test_scalers_have_the_values(name: str) -> None:
    """Of one pod and of several; Prometheus is asked about this release's workers alone."""
    objects = render(SCALED, {"autoscaling": {"by": name}}, release="blue")
    kind = {"hpa": "HorizontalPodAutoscaler", "keda": "ScaledObject"}[name]
    assert len(of_kind(objects, kind)) == 2
    for role, limits, goal in (("prefill", [2, 6], "5"), ("decode", [1, 2], "70")):
        spec = named(objects, kind, f"blue-glm47-{role}")["spec"]
        target = named(objects, spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"])
        assert target["apiVersion"] == spec["scaleTargetRef"]["apiVersion"]
        assert target["metadata"]["name"] == f"blue-glm47-{role}" and "replicas" not in target["spec"]
        assert (target["kind"] == "LeaderWorkerSet") is (role == "prefill")
        if name == "hpa":
            assert [spec["minReplicas"], spec["maxReplicas"]] == limits
            assert spec["metrics"][0]["pods"]["target"]["averageValue"] == goal
            continue
        assert [spec["minReplicaCount"], spec["maxReplicaCount"]] == limits
        asked = spec["triggers"][0]["metadata"]
        assert (asked["threshold"], asked["serverAddress"]) == (goal, "https://prometheus.example.com")
        assert '{namespace="default",dynamo_namespace="blue",' in asked["query"]


@pytest.mark.parametrize("release", ["glm47", "blue"])
def test_keda_says_who_it_is(release: str) -> None:
    """By the Secret that is named, of this release; nothing of it without modes."""
    given = {"autoscaling": {"by": "keda", "authModes": "tls,bearer", "authSecret": "thanos"}}
    objects = render(given, release=release)
    (credentials,) = of_kind(objects, "TriggerAuthentication")
    assert {entry["name"] for entry in credentials["spec"]["secretTargetRef"]} == {"thanos"}
    for scaler in of_kind(objects, "ScaledObject"):
        (trigger,) = scaler["spec"]["triggers"]
        assert trigger["metadata"]["authModes"] == "tls,bearer"
        assert trigger["authenticationRef"] == {"name": credentials["metadata"]["name"]}
    assert credentials["metadata"]["name"].startswith(release)
    assert not of_kind(render({"autoscaling": {"by": "keda"}}), "TriggerAuthentication")


def test_keda_asks_for_the_namespace_that_is_set() -> None:
    objects = render({"autoscaling": {"by": "keda"}, "settings": {"GLM47_NAMESPACE": "mine"}})
    for scaler in of_kind(objects, "ScaledObject"):
        assert 'dynamo_namespace="mine",' in scaler["spec"]["triggers"][0]["metadata"]["query"]


def test_the_api_server_is_where_the_values_say() -> None:
    objects = render(SCALED, {"events": True})
    for name in ("glm47-api-server", "glm47-discovery"):
        (rule,) = named(objects, "NetworkPolicy", name)["spec"]["egress"]
        assert rule["to"] == [{"ipBlock": {"cidr": "10.1.2.3/32"}}]
        assert rule["ports"] == [{"port": 8443, "protocol": "TCP"}]


def test_a_release_is_a_second_deployment() -> None:
    """By its name alone it has what second-deployment gives a kustomize user."""
    assert comparable(render(release="blue")) == comparable(overlay("second-deployment"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_releases_share_nothing(layout: str) -> None:
    blue, green = (
        [o for o in render(values(layout), release=name) if not is_hook(o)] for name in ("blue", "green")
    )
    share_nothing(blue, green)
    assert not endpoints(blue) & endpoints(green)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_value_reaches_its_pods_and_is_valid(layout: str) -> None:
    """test_valid.py has a look at what a cluster says to these objects."""
    objects = render(values(layout), EVERYTHING)
    main = [o for o in objects if not is_hook(o)]
    for _, template in templates(main):
        spec = template["spec"]
        assert spec["containers"][0]["image"] == "registry.example.com/glm47-runner:1.2.3"
        assert spec["containers"][0]["imagePullPolicy"] == "IfNotPresent"
        assert spec["imagePullSecrets"] == [{"name": "registry"}]
        assert spec["priorityClassName"] == "inference"
        assert spec["nodeSelector"] == {"kubernetes.io/arch": "arm64"}
        assert "kubernetes.io/arch" in {t["key"] for t in spec["tolerations"]}
        assert template["metadata"]["annotations"]["example.com/a"] == "b"
        assert template["metadata"]["labels"]["example.com/team"] == "inference"
    for pod in pods(main):
        assert pod.spec["serviceAccountName"] == "glm47-runner"
        assert "pages" in {v["secret"]["secretName"] for v in pod.spec["volumes"] if "secret" in v}
        component = pod.owner.removeprefix("glm47-")
        classes = {claim["storageClassName"] for claim in pod.claims.values()}
        if component in ("etcd", "nats"):
            assert classes == {"quick"}
            continue
        variables = environ(pod, main)
        assert variables["GLM47_LOG_FORMAT"] == "json" and variables["NCCL_DEBUG"] == "INFO"
        assert variables["GLM47_STOP_TIMEOUT"] == "100"
        assert pod.spec["terminationGracePeriodSeconds"] == 115
        volumes = {v["name"]: v for v in pod.spec["volumes"]}
        assert volumes["model"]["persistentVolumeClaim"]["claimName"] == "files"
        if component != "frontend":
            assert {t["key"] for t in pod.spec["tolerations"]} == {"nvidia.com/gpu", "kubernetes.io/arch"}
            assert classes == {"local"}
            assert pod.claims["cache"]["resources"]["requests"]["storage"] == "50Gi"
            assert pod.container["resources"]["limits"]["rdma/ib"] == 4
            assert "memory" in pod.container["resources"]["limits"]
    (route,) = of_kind(objects, "HTTPRoute")
    (backend,) = route["spec"]["rules"][0]["backendRefs"]
    pool = named(objects, "InferencePool", backend["name"])
    (port,) = pool["spec"]["targetPorts"]
    chosen = [p for p in pods(main) if pool["spec"]["selector"]["matchLabels"].items() <= p.labels.items()]
    assert chosen
    for pod in chosen:
        assert port["number"] in {p["containerPort"] for p in pod.container["ports"]}


def test_the_model_is_fetched_and_checked_before_anything_else() -> None:
    objects = render(EVERYTHING)
    claim = named(objects, "PersistentVolumeClaim", "files")
    job = named(objects, "Job", "glm47-model")
    assert int(claim["metadata"]["annotations"]["helm.sh/hook-weight"]) < 0
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    spec = job["spec"]["template"]["spec"]
    assert [c["image"] for c in spec["initContainers"]] == ["hub:1"]
    assert spec["containers"][0]["args"] == ["model", "check"]
    # Its own pods' policy does not hold it back from the hub.
    labels = job["spec"]["template"]["metadata"]["labels"]
    for policy in of_kind(objects, "NetworkPolicy"):
        assert not policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()


def test_the_test_pod_may_ask_and_serves_nobody() -> None:
    objects = render()
    pod = named(objects, "Pod", "glm47-smoke")
    assert pod["spec"]["containers"][0]["args"] == ["smoke", "http://glm47:8000"]
    labels = pod["metadata"]["labels"]
    policy = named(objects, "NetworkPolicy", "glm47")["spec"]
    assert policy["ingress"][0]["from"][0]["podSelector"]["matchLabels"].items() <= labels.items()
    assert not named(objects, "Service", "glm47")["spec"]["selector"].items() <= labels.items()


def test_a_changed_setting_is_another_configmap() -> None:
    """So pods that read it are replaced."""
    names = {
        of_kind(render({"settings": {"GLM47_HANG_TIMEOUT": value}}), "ConfigMap")[0]["metadata"]["name"]
        for value in (60, 61)
    }
    assert len(names) == 2


WRONG: list[tuple[Object, str]] = [
    ({"layuot": "single"}, "layuot"),
    ({"layout": "1p1d"}, "layout"),
    ({"settings": {"GLM47_TPP": 4}}, "GLM47_TPP"),
    ({"settings": {"NCCL_DEBUG": "INFO"}}, "NCCL_DEBUG"),
    ({"settings": {"ROLE": "decode"}}, "ROLE"),
    ({"settings": {"GLM47_TP": [4]}}, "GLM47_TP"),
    ({"env": {"GLM47_TP": "4"}}, "GLM47_TP"),
    ({"env": {"ROLE": "decode"}}, "ROLE"),
    ({"prefill": {"replicas": 0}}, "/prefill/replicas"),
    ({"prefill": {"gpus": "4"}}, "/prefill/gpus"),
    ({"decode": {"node": 2}}, "node"),
    ({"decode": {"cache": {"size": "20 GB"}}}, "/decode/cache/size"),
    ({"image": {"tags": "1"}}, "tags"),
    ({"image": {"digest": "abc"}}, "/image/digest"),
    ({"imagePullSecrets": ["registry"]}, "/imagePullSecrets/0"),
    ({"pods": {"tolerations": [{"effect": "NoSchedul"}]}}, "/pods/tolerations/0/effect"),
    ({"externalServers": {"etcd": "etcd:2379"}}, "/externalServers/etcd"),
    ({"model": {"download": {"enabled": True}}}, "/model/download/image"),
    ({"route": {"enabled": True}}, "/route/parentRefs"),
    ({"inferencePool": {"enabled": True}}, "/inferencePool/endpointPicker"),
    ({"inferencePool": {"failureMode": "Open"}}, "/inferencePool/failureMode"),
    ({"fullnameOverride": "Big_Name"}, "/fullnameOverride"),
    ({"rdma": "yes"}, "/rdma"),
    ({"events": "yes"}, "/events"),
    ({"statusToken": {"secret": ""}}, "/statusToken/secret"),
    ({"apiServer": {"networks": ["10.0.0.1"]}}, "/apiServer/networks/0"),
    ({"apiServer": {"ports": []}}, "/apiServer/ports"),
    ({"autoscaling": {"by": "vpa"}}, "/autoscaling/by"),
    ({"autoscaling": {"prometheus": "prometheus:9090"}}, "/autoscaling/prometheus"),
    ({"autoscaling": {"by": "hpa"}, "layout": "single"}, "/layout"),
    ({"autoscaling": {"by": "keda"}, "nvlinkDomain": True}, "/nvlinkDomain"),
    ({"autoscaling": {"by": "keda", "authModes": "token"}}, "/autoscaling/authModes"),
    ({"autoscaling": {"by": "hpa", "authModes": "bearer"}}, "/autoscaling/by"),
    ({"route": {"hostnames": ["GLM.example.com"]}}, "/route/hostnames/0"),
    ({"route": {"parentRefs": [{"name": "gateway", "port": 0}]}}, "/route/parentRefs/0/port"),
    ({"decode": {"autoscaling": {"minReplicas": 0}}}, "/decode/autoscaling/minReplicas"),
    ({"autoscaling": {"by": "hpa"}, "decode": {"autoscaling": {"minReplicas": 5}}}, "cannot scale decode"),
    ({"kubernetesDiscovery": True, "layout": "single"}, "/layout"),
    ({"kubernetesDiscovery": True, "servers": {"etcdTls": True}}, "/servers/etcdTls"),
    ({"kubernetesDiscovery": True, "servers": {"natsAuth": True}}, "/servers/natsAuth"),
    ({"externalServers": {"enabled": True}, "servers": {"natsAuth": True}}, "/servers/natsAuth"),
    ({"servers": {"nats": False, "natsTls": True}}, "/servers/natsTls"),
    ({"kubernetesDiscovery": True, "externalServers": {"enabled": True}}, "/externalServers/enabled"),
]


@pytest.mark.parametrize(
    ("given", "named_"), WRONG, ids=lambda v: json.dumps(v) if isinstance(v, dict) else v
)
def test_wrong_values_are_named(given: Object, named_: str) -> None:
    with pytest.raises(chart.helm().HelmError) as refused:
        render(given)
    assert named_ in str(refused.value)


def test_every_default_is_in_the_schema() -> None:
    """No value of values.yaml is one that the schema has not heard of, at any depth."""

    def known(value: Any, schema: Any, path: str) -> None:
        while "$ref" in schema:
            schema = document["$defs"][schema["$ref"].rpartition("/")[2]]
        for key, inner in value.items() if isinstance(value, dict) else ():
            assert key in schema.get("properties", {}), f"{path}{key}"
            known(inner, schema["properties"][key], f"{path}{key}.")

    document = json.loads((chart.CHART / "values.schema.json").read_text())
    known(yaml.safe_load((chart.CHART / "values.yaml").read_text()), document, "")
    folders = {folder.name for folder in (K8S / "components").iterdir()}
    assert set(FITTING) == set(COMPONENTS) == folders - IN_LAYOUTS
    assert set(IN_GROUPS) < set(LAYOUTS)
