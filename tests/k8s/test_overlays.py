"""Overlays of a person's own over the finished layouts: what the pods then have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from entrypoint.load import load_plan
from tests.k8s import schemas
from tests.k8s.manifests import (
    IN_GROUPS,
    K8S,
    LAYOUTS,
    Object,
    PodSpec,
    built,
    environ,
    named,
    of_kind,
    overlay,
    pods,
    selects,
    templates,
    with_component,
)

NEWEST = "1.37"
SEVERAL_PODS = [layout for layout in LAYOUTS if layout != "single-node"]
FITTING = {
    "monitoring": list(LAYOUTS),
    "workers-example": list(LAYOUTS),
    "external-servers": SEVERAL_PODS,
    "without-nats": SEVERAL_PODS,
    "etcd-tls": SEVERAL_PODS,
    "nats-auth": SEVERAL_PODS,
    "nats-tls": SEVERAL_PODS,
    "rdma": [layout for layout in SEVERAL_PODS if layout not in IN_GROUPS],
    "nvlink-domain": [layout for layout in SEVERAL_PODS if layout not in IN_GROUPS],
    "events": list(LAYOUTS),
    "status-token": list(LAYOUTS),
    "hpa": [layout for layout in SEVERAL_PODS if layout not in IN_GROUPS],
    "keda": [layout for layout in SEVERAL_PODS if layout not in IN_GROUPS],
    "keda-auth": [layout for layout in SEVERAL_PODS if layout not in IN_GROUPS],
    "kubernetes-discovery": SEVERAL_PODS,
}
"""Each component's layouts; those with groups have rdma and nvlink-domain. mocker/ has the mocker on all."""
SERVERS = ("external-servers", "without-nats", "etcd-tls", "nats-auth", "nats-tls", "kubernetes-discovery")
"""Those that are about servers: one at a time here."""
TOGETHER = [component for component in FITTING if component not in (*SERVERS, "keda")]
"""All the others, but what is in another one of them already (keda-auth has keda)."""
PAIRS = [(component, layout) for component, layouts in FITTING.items() for layout in layouts]
WORKERS = ("single", "prefill", "decode")


def is_worker(pod: PodSpec) -> bool:
    return pod.owner.removeprefix("glm47-") in WORKERS


def has(pod: PodSpec, component: str, objects: list[Object]) -> None:
    """AssertionError unless the pod is as the component wants it."""
    variables = environ(pod, objects)
    mounts = {m["name"]: m["mountPath"] for m in pod.container["volumeMounts"]}
    if component == "rdma":
        wanted = ["IPC_LOCK"] if is_worker(pod) else []
        assert pod.container["securityContext"]["capabilities"] == {
            "drop": ["ALL"],
            **({"add": wanted} if wanted else {}),
        }
    elif component == "without-nats":
        assert "NATS_SERVER" not in variables and variables["ROLE"] != "nats"
    elif component == "etcd-tls":
        uses_it = variables["ROLE"] != "nats"
        assert (mounts.get("etcd-tls") == variables.get("GLM47_ETCD_TLS_DIR")) is True
        assert ("GLM47_ETCD_TLS_DIR" in variables) is uses_it
        assert variables["ROLE"] in ("etcd", "nats") or variables["ETCD_ENDPOINTS"].startswith("https://")
    elif component in ("nats-auth", "nats-tls"):
        uses_it = variables["ROLE"] != "etcd"
        setting = "GLM47_NATS_TLS_DIR" if component == "nats-tls" else "GLM47_NATS_PASSWORD_FILE"
        assert (component in mounts, setting in variables) == (uses_it, uses_it)
        assert variables.get(setting, "").startswith(mounts.get(component, ""))
        scheme = "tls" if component == "nats-tls" else "nats"
        assert variables.get("NATS_SERVER", scheme).startswith(scheme)
    elif component == "external-servers":
        assert variables["ETCD_ENDPOINTS"] == "http://etcd.servers.svc:2379"
        assert mounts["servers"] == "/etc/glm47/servers"
        assert len([name for name in variables if name.endswith("_FILE")]) == 4
    elif component == "nvlink-domain" and is_worker(pod):
        assert variables["GLM47_MNNVL"] == "on"
        (claim,) = pod.spec["resourceClaims"]
        assert pod.container["resources"]["claims"] == [{"name": claim["name"]}]
        domain = named(objects, "ComputeDomain", "glm47")["spec"]
        assert claim["resourceClaimTemplateName"] == domain["channel"]["resourceClaimTemplate"]["name"]
        (term,) = pod.spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert selects(term["labelSelector"]["matchLabels"], pod.labels)
    elif component == "workers-example" and is_worker(pod):
        assert pod.spec["priorityClassName"] == "inference"
        assert pod.spec["nodeSelector"] == {"kubernetes.io/arch": "arm64"}
        assert {t["key"] for t in pod.spec["tolerations"]} == {"nvidia.com/gpu", "kubernetes.io/arch"}
        assert pod.container["resources"]["limits"]["memory"] == "700Gi"
        assert variables["GLM47_LOG_FORMAT"] == "json"
        assert mounts["status"] == "/etc/glm47/status"
        assert "glm47-status" in {v["secret"]["secretName"] for v in pod.spec["volumes"] if "secret" in v}
    elif component == "workers-example":
        assert "priorityClassName" not in pod.spec
    elif component == "events":
        assert pod.spec["serviceAccountName"] == "glm47-runner"
        assert pod.spec["automountServiceAccountToken"] is True
        assert (variables["POD_NAME"], variables["POD_UID"]) == (pod.name, f"uid-of-{pod.name}")
    elif component == "kubernetes-discovery":
        assert variables["DYN_DISCOVERY_BACKEND"] == "kubernetes" and "ETCD_ENDPOINTS" not in variables
        assert pod.spec["serviceAccountName"] == "glm47-discovery"
    elif component == "status-token":
        assert variables["GLM47_STATUS_TOKEN_FILE"] == "/etc/glm47/status/token"
        assert mounts["status"] == "/etc/glm47/status"


def before(pod: PodSpec, layout: str) -> PodSpec:
    """The same pod of the layout by itself."""
    (found,) = (p for p in pods(overlay(layout)) if p.name == pod.name)
    return found


def keeps(pod: PodSpec, old: PodSpec) -> None:
    """AssertionError if the pod has lost a variable, port, mount, volume, label or request of the old one."""
    for part, key in (("env", "name"), ("ports", "containerPort"), ("volumeMounts", "mountPath")):
        names = [entry[key] for entry in pod.container[part]]
        assert {entry[key] for entry in old.container[part]} <= set(names), (pod.name, part)
        assert len(set(names)) == len(names), (pod.name, part)
    assert {v["name"] for v in old.spec["volumes"]} <= {v["name"] for v in pod.spec["volumes"]}
    assert pod.container["envFrom"] if "envFrom" in old.container else True
    assert pod.container["resources"]["requests"] == old.container["resources"]["requests"]
    assert selects(old.labels, pod.labels)
    assert pod.claims == old.claims


@pytest.mark.parametrize(("component", "layout"), PAIRS)
def test_component_reaches_its_pods(component: str, layout: str, tmp_path: Path) -> None:
    """By what the pods really have; the runner takes their variables, a cluster the objects."""
    objects = with_component(component, tmp_path, layout)
    for resource in objects:
        schemas.check(resource, NEWEST)
    made = pods(objects)
    assert made
    for pod in made:
        has(pod, component, objects)
        keeps(pod, before(pod, layout))
        variables = {k: v for k, v in environ(pod, objects).items() if not k.endswith("_FILE")}
        if component == "nats-tls":
            variables["GLM47_PYTHON"] = "/nonexistent"  # the Dynamo that is installed here has no TLS
        assert not load_plan(variables, tmp_path).plan.warnings


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_components_at_once(layout: str, tmp_path: Path) -> None:
    """They do not undo each other, in the README's order or in the other one."""
    fitting = [c for c in (*TOGETHER, SERVERS[0]) if layout in FITTING[c]]
    made = []
    for order in (fitting, fitting[::-1]):
        listed = [f"../components/{component}" for component in order]
        objects = built(tmp_path, {"resources": [f"../{layout}"], "components": listed})
        for pod in pods(objects):
            keeps(pod, before(pod, layout))
            for component in fitting:
                if component not in SERVERS:
                    has(pod, component, objects)
        made.append({p.name: _sorted(p.spec) for p in pods(objects)})
    assert made[0] == made[1]


def _sorted(value: Any) -> Any:
    """Lists in an order that does not tell how they came about."""
    if isinstance(value, dict):
        return {k: _sorted(v) for k, v in value.items()}
    if isinstance(value, list):
        return sorted((_sorted(v) for v in value), key=repr)
    return value


@pytest.mark.parametrize(
    "directory", sorted({d.parent.name for d in (K8S / "components").glob("*/group*.yaml")})
)
def test_both_kinds_of_workers_get_the_same(directory: str) -> None:
    """A component says for groups word for word what it says for StatefulSets."""
    folder = K8S / "components" / directory
    for group in folder.glob("group*.yaml"):
        ours = yaml.safe_load(group.read_text())
        other = {"group.yaml": "worker.yaml"}.get(group.name, group.name.removeprefix("group-"))
        theirs = yaml.safe_load((folder / other).read_text())
        assert ours["kind"] == "LeaderWorkerSet"
        assert ours["spec"] == {"leaderWorkerTemplate": {"workerTemplate": theirs["spec"]["template"]}}


@pytest.mark.parametrize("layout", IN_GROUPS)
def test_a_patch_that_misses_the_groups_fails(layout: str, tmp_path: Path) -> None:
    """One that names the StatefulSet of a layout whose workers are groups: kustomize says so."""
    patch = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "glm47-decode"}}
    kustomization = {"resources": [f"../{layout}"], "patches": [{"patch": yaml.safe_dump(patch)}]}
    with pytest.raises(AssertionError, match=r"no matches for Id StatefulSet.*glm47-decode"):
        built(tmp_path, kustomization)


@pytest.mark.parametrize("layout", IN_GROUPS)
def test_names_are_followed_into_groups(layout: str, tmp_path: Path) -> None:
    """A ConfigMap, a Secret and a claim that kustomize gives new names."""
    spec = {
        "containers": [
            {
                "name": "runner",
                "env": [
                    {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "mine", "key": "a"}}},
                    {"name": "B", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "b"}}},
                ],
            }
        ],
        "imagePullSecrets": [{"name": "hidden"}],
        "serviceAccountName": "worker",
        "volumes": [
            {"name": "a", "configMap": {"name": "mine"}},
            {"name": "b", "secret": {"secretName": "hidden"}},
            {"name": "c", "persistentVolumeClaim": {"claimName": "files"}},
        ],
    }
    patch = {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": {"name": "glm47-decode"},
        "spec": {"leaderWorkerTemplate": {"workerTemplate": {"spec": spec}}},
    }
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "worker"}}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "files"}}
    objects = built(
        tmp_path,
        {
            "resources": [f"../{layout}", "more.yaml"],
            "namePrefix": "my-",
            "configMapGenerator": [{"name": "mine", "literals": ["a=1"]}],
            "secretGenerator": [{"name": "hidden", "literals": ["b=1"]}],
            "patches": [{"patch": yaml.safe_dump(patch)}],
        },
        {"more.yaml": yaml.safe_dump_all([account, claim])},
    )
    there = {(o["kind"], o["metadata"]["name"]) for o in objects}
    template = next(t for o, t in templates(objects) if o["metadata"]["name"] == "my-glm47-decode")
    names = _references(template["spec"])
    assert len([n for n in names if n[1].startswith("my-")]) == 8
    assert {n for n in names if n not in there} == {("PersistentVolumeClaim", "glm47-model")}
    assert not of_kind(objects, "ResourceClaimTemplate")


def _references(spec: Object) -> list[tuple[str, str]]:
    """(kind, name) of every object that a pod's spec names."""
    (container,) = spec["containers"]
    found = [("ServiceAccount", spec["serviceAccountName"])]
    found += [("Secret", s["name"]) for s in spec["imagePullSecrets"]]
    for source in container["envFrom"]:
        for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            found += [(kind, source[key]["name"])] if key in source else []
    for entry in container["env"]:
        for key, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
            found += [(kind, entry["valueFrom"][key]["name"])] if key in entry.get("valueFrom", {}) else []
    for volume in spec["volumes"]:
        for key, name, kind in (
            ("configMap", "name", "ConfigMap"),
            ("secret", "secretName", "Secret"),
            ("persistentVolumeClaim", "claimName", "PersistentVolumeClaim"),
        ):
            found += [(kind, volume[key][name])] if key in volume else []
    return found
