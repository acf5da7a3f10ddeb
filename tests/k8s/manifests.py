"""The manifests under k8s/: rendered by the real kustomize, and taken apart into the pods they stand for."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from tests.k8s.programs import programs

ROOT = Path(__file__).resolve().parents[2]
K8S = ROOT / "k8s"
LAYOUTS = (
    *("single-node", "1p1d", "1p2d", "2p2d", "shared-nodes"),
    *("wide-decode", "multi-node", "multi-node-2p2d"),
)
IN_GROUPS = {
    "wide-decode": {"glm47-decode"},
    "multi-node": {"glm47-prefill", "glm47-decode"},
    "multi-node-2p2d": {"glm47-prefill", "glm47-decode"},
}
"""The layouts with workers of several nodes in one NVLink domain, and which workers those are."""
OVERLAYS = (*LAYOUTS, *(f"mocker/{layout}" for layout in LAYOUTS))
NAMESPACE = "default"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Object = dict[str, Any]


def kustomize() -> Path:
    """A real one. Debian 13 is the first to have it."""
    return programs("kustomize", "trixie", "kustomize") / "kustomize"


def build(directory: Path) -> list[Object]:
    """What `kubectl apply -k` would apply."""
    done = subprocess.run(
        [kustomize(), "build", str(directory)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    # It warns of fields that it will drop one day.
    assert not done.stderr, done.stderr
    return [o for o in yaml.load_all(done.stdout, LOADER) if o]


@cache
def _overlay(name: str) -> str:
    return json.dumps(build(K8S / name))


def overlay(name: str) -> list[Object]:
    """The objects of k8s/<name>, fresh for every caller."""
    result: list[Object] = json.loads(_overlay(name))
    return result


def with_component(component: str, directory: Path, layout: str = "1p1d") -> list[Object]:
    """A layout with an optional component, as the README says to add one."""
    return built(directory, {"resources": [f"../{layout}"], "components": [f"../components/{component}"]})


def built(
    directory: Path, kustomization: Object, files: Mapping[str, str] = MappingProxyType({})
) -> list[Object]:
    """What an overlay of a person's own makes, which lies in a folder beside the layouts.

    `files`: its other files, texts by path.
    """
    copied = directory / "k8s"
    if not copied.exists():
        subprocess.run(["cp", "-r", K8S, copied], check=True)
    mine = copied / f"mine-{len(list(copied.iterdir()))}"
    for name, text in {**files, "kustomization.yaml": yaml.safe_dump(kustomization)}.items():
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_text(text)
    return build(mine)


def operator_objects() -> list[Object]:
    """The objects of the examples for Dynamo's operator."""
    files = sorted((K8S / "dynamo-operator").glob("*.yaml"))
    return [found for file in files for found in yaml.safe_load_all(file.read_text())]


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [o for o in objects if o["kind"] == kind]


def named(objects: list[Object], kind: str, name: str) -> Object:
    """The object of that kind and name; AssertionError if there is none."""
    found = [o for o in of_kind(objects, kind) if o["metadata"]["name"] == name]
    assert len(found) == 1, (kind, name)
    return found[0]


@dataclass
class PodSpec:
    """A pod as its controller would make it."""

    name: str
    owner: str
    labels: Mapping[str, str]
    spec: Object
    environ: Mapping[str, str] = field(default_factory=dict)
    """What the controller injects besides (LeaderWorkerSet)."""
    claims: Mapping[str, Object] = field(default_factory=dict)
    """Specs of the volumes that come from volumeClaimTemplates, by volume name."""

    @property
    def container(self) -> Object:
        (only,) = self.spec["containers"]
        result: Object = only
        return result


def templates(objects: list[Object]) -> Iterator[tuple[Object, Object]]:
    """(owner, pod template) of everything that makes pods."""
    for o in objects:
        if o["kind"] in ("Deployment", "StatefulSet"):
            yield o, o["spec"]["template"]
        elif o["kind"] == "LeaderWorkerSet":
            yield o, o["spec"]["leaderWorkerTemplate"]["workerTemplate"]


def pods(objects: list[Object], namespace: str = NAMESPACE) -> list[PodSpec]:
    """The pods that the controllers would make of `objects` in `namespace`."""
    made = []
    for owner, template in templates(objects):
        name = owner["metadata"]["name"]
        replicas = owner["spec"].get("replicas", 1)
        for index in range(replicas):
            if owner["kind"] == "LeaderWorkerSet":
                made += _group(owner, template, index, namespace)
                continue
            claims = owner["spec"].get("volumeClaimTemplates", [])
            made.append(_pod(f"{name}-{index}", name, template, claims))
    return made


def _pod(name: str, owner: str, template: Object, claims: list[Object], **more: Any) -> PodSpec:
    copied = copy.deepcopy(template)
    return PodSpec(
        name,
        owner,
        copied["metadata"]["labels"],
        copied["spec"],
        claims={c["metadata"]["name"]: c["spec"] for c in claims},
        **more,
    )


def _group(owner: Object, template: Object, index: int, namespace: str) -> list[PodSpec]:
    """A LeaderWorkerSet's group: names, addresses and variables as its documentation gives them."""
    name = owner["metadata"]["name"]
    group = owner["spec"]["leaderWorkerTemplate"]
    leader = f"{name}-{index}"
    address = f"{leader}.{name}.{namespace}"
    made = []
    for rank in range(group["size"]):
        pod = leader if rank == 0 else f"{leader}-{rank}"
        environ = {
            "LWS_LEADER_ADDRESS": address,
            "LWS_GROUP_SIZE": str(group["size"]),
            "LWS_WORKER_INDEX": str(rank),
        }
        claims = group.get("volumeClaimTemplates", [])
        made.append(_pod(pod, name, template, claims, environ=environ))
    return made


def environ(pod: PodSpec, objects: list[Object]) -> dict[str, str]:
    """The variables of a pod's container: its ConfigMaps, its own, its controller's."""
    result: dict[str, str] = {}
    for source in pod.container.get("envFrom", []):
        result |= named(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
    for entry in pod.container.get("env", []):
        if "value" in entry:
            result[entry["name"]] = entry["value"]
        else:
            result[entry["name"]] = _field(pod, entry["valueFrom"]["fieldRef"]["fieldPath"])
    return {**result, **pod.environ}


def _field(pod: PodSpec, path: str) -> str:
    known = {
        "metadata.uid": f"uid-of-{pod.name}",
        "metadata.name": pod.name,
        "metadata.namespace": NAMESPACE,
        "status.podIP": "127.0.0.1",
    }
    assert path in known, f"the manifests use a field that the tests do not know: {path}"
    return known[path]


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return selector.items() <= labels.items()


def known_of_itself(pod: PodSpec) -> dict[str, str]:
    """The variables that a pod's container has from its own fields, and from which one each."""
    env = pod.container["env"]
    return {e["name"]: e["valueFrom"]["fieldRef"]["fieldPath"] for e in env if "valueFrom" in e}
