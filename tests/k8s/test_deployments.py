"""Several deployments in one namespace, and one that becomes another layout."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

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
)
from tests.k8s.test_overlays import FITTING, TOGETHER

SHARED = {("PersistentVolumeClaim", "glm47-model")}
"""What two deployments both use, and mean to."""
README = (K8S / "README.md").read_text()


def second(name: str, layout: str, directory: Path) -> list[Object]:
    """second-deployment, copied and changed as it says, with every component that fits."""
    text = (K8S / "second-deployment" / "kustomization.yaml").read_text().replace("blue", name)
    kustomization = yaml.safe_load(text)
    kustomization["resources"] = [f"../{layout}"]
    fitting = [c for c in TOGETHER if layout in FITTING[c]]
    kustomization["components"] = [f"../components/{component}" for component in fitting]
    if layout == "single-node":
        # It has no servers to name.
        del kustomization["configMapGenerator"], kustomization["patches"]
    return built(directory, kustomization)


def label_selectors(value: Any) -> Iterator[dict[str, str]]:
    """Every `matchLabels`, and every Service's `selector`."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "matchLabels" or (
                key == "selector" and inner and all(isinstance(v, str) for v in inner.values())
            ):
                yield inner
            else:
                yield from label_selectors(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from label_selectors(inner)


def uses(pod: PodSpec) -> set[tuple[str, str]]:
    """(kind, name) of what a pod reads, keeps or claims."""
    found = {("PersistentVolumeClaim", f"{name}-{pod.name}") for name in pod.claims}
    found |= {
        ("ResourceClaimTemplate", c["resourceClaimTemplateName"]) for c in pod.spec.get("resourceClaims", [])
    }
    found |= {("ConfigMap", e["configMapRef"]["name"]) for e in pod.container.get("envFrom", [])}
    for volume in pod.spec["volumes"]:
        if "persistentVolumeClaim" in volume:
            found.add(("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]))
    return found


def share_nothing(ours: list[Object], theirs: list[Object]) -> None:
    """AssertionError for an object, selector, endpoint, Dynamo namespace or claim of both."""
    assert not {(o["kind"], o["metadata"]["name"]) for o in ours} & {
        (o["kind"], o["metadata"]["name"]) for o in theirs
    }
    used = [set().union(*(uses(p) for p in pods(objects))) for objects in (ours, theirs)]
    assert used[0] & used[1] == SHARED
    for one, other in ((ours, theirs), (theirs, ours)):
        own, foreign = pods(one), pods(other)
        chosen = 0
        for o in one:
            services = [s["metadata"]["labels"] for s in of_kind(other, "Service")]
            for selector in label_selectors(o):
                if "kubernetes.io/metadata.name" in selector:
                    continue
                of_services = o["kind"] == "ServiceMonitor"
                assert not any(selects(selector, p.labels) for p in foreign), (o["kind"], selector)
                assert not (of_services and any(selects(selector, s) for s in services)), selector
                chosen += any(selects(selector, p.labels) for p in own) or of_services
        assert chosen >= 6


def endpoints(objects: list[Object]) -> set[str]:
    """The hosts that pods are told to reach; AssertionError for one that is no Service of their own."""
    found = set()
    for pod in pods(objects):
        variables = environ(pod, objects)
        for name in ("ETCD_ENDPOINTS", "NATS_SERVER"):
            for address in filter(None, variables.get(name, "").split(",")):
                host = str(urlsplit(address).hostname)
                named(objects, "Service", host.split(".")[-1])
                found.add(host)
    return found


def dynamo_namespaces(objects: list[Object]) -> set[str]:
    return {
        environ(p, objects).get("GLM47_NAMESPACE", "dynamo")
        for p in pods(objects)
        if p.labels["app.kubernetes.io/component"] in ("frontend", "prefill", "decode")
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_deployments_share_nothing(layout: str, tmp_path: Path) -> None:
    """Two that were made from second-deployment, and one of them beside the layout as it is."""
    blue, green = (second(name, layout, tmp_path) for name in ("blue", "green"))
    plain = overlay(layout)
    for one, other in itertools.combinations((blue, green, plain), 2):
        share_nothing(one, other)
        assert not endpoints(one) & endpoints(other)
        if layout != "single-node":
            # With a file store of its own in its pod, single-node's cannot meet.
            assert not dynamo_namespaces(one) & dynamo_namespaces(other)


def test_the_template_itself_is_complete() -> None:
    """k8s/second-deployment as it stands beside 1p1d."""
    share_nothing(overlay("second-deployment"), overlay("1p1d"))
    assert not endpoints(overlay("second-deployment")) & endpoints(overlay("1p1d"))


def test_a_benchmark_belongs_to_its_deployment() -> None:
    """Its pod is one of those that the network policy lets in, and no Service's."""
    (job,) = of_kind(overlay("bench"), "Job")
    labels = job["spec"]["template"]["metadata"]["labels"]
    for policy in of_kind(overlay("1p1d"), "NetworkPolicy"):
        for rule in policy["spec"].get("ingress", []):
            for source in rule.get("from", []):
                assert selects(source["podSelector"]["matchLabels"], labels)
    assert not selects(named(overlay("1p1d"), "Service", "glm47")["spec"]["selector"], labels)


SERVICES = {"1p1d": "glm47", "second-deployment": "blue-glm47"}


@pytest.mark.parametrize(
    ("bench", "deployment"), [("bench", "1p1d"), ("second-deployment/bench", "second-deployment")]
)
def test_a_benchmark_asks_its_own_deployment(bench: str, deployment: str) -> None:
    """By its variable, as the kubelet puts it in; of a second one nothing has a name of the first one's."""
    objects, measured = overlay(bench), overlay(deployment)
    (job,) = of_kind(objects, "Job")
    template = job["spec"]["template"]
    (container,) = template["spec"]["containers"]
    given = {entry["name"]: entry["value"] for entry in container["env"]}
    args = [re.sub(r"\$\((\w+)\)", lambda found: given[found[1]], word) for word in container["args"]]
    url = urlsplit(args[2])
    assert named(measured, "Service", str(url.hostname))["spec"]["ports"][0]["port"] == url.port
    named(measured, "Service", args[args.index("--health") + 1])
    policy = named(measured, "NetworkPolicy", SERVICES[deployment])
    assert selects(policy["spec"]["podSelector"]["matchLabels"], template["metadata"]["labels"])
    claims = [v["persistentVolumeClaim"] for v in template["spec"]["volumes"] if "persistentVolumeClaim" in v]
    (reports,) = of_kind(objects, "PersistentVolumeClaim")
    assert {c["claimName"] for c in claims} == {reports["metadata"]["name"], "glm47-model"}


def test_two_benchmarks_share_nothing() -> None:
    names = [
        {(o["kind"], o["metadata"]["name"]) for o in overlay(bench)}
        for bench in ("bench", "second-deployment/bench")
    ]
    assert not names[0] & names[1]


# -- from one layout to another

FIXED = {
    "StatefulSet": ("selector", "serviceName", "podManagementPolicy", "volumeClaimTemplates"),
    "Deployment": ("selector",),
    "Service": ("clusterIP",),
    "LeaderWorkerSet": (),
    "ComputeDomain": ("numNodes", "channel"),
}
"""What cannot be changed in place, as the API server and the driver have it."""
ALONE = {"single-node"}
OF_STATEFULSETS = set(LAYOUTS) - set(IN_GROUPS) - ALONE
PAIRS = list(itertools.permutations(LAYOUTS, 2))


def left_behind(old: list[Object], new: list[Object]) -> set[tuple[str, str]]:
    """What `kubectl apply -k` would not take away, of what makes pods or claims of one."""
    there = {(o["kind"], o["metadata"]["name"]) for o in new}
    return {
        (o["kind"], o["metadata"]["name"])
        for o in old
        if o["kind"] in FIXED and (o["kind"], o["metadata"]["name"]) not in there
    }


def changed(old: list[Object], new: list[Object]) -> list[tuple[Object, Object]]:
    """What `kubectl apply -k` could not change: as it is, and as it would be."""
    found = []
    for o in new:
        for other in old:
            same = (o["kind"], o["metadata"]["name"]) == (other["kind"], other["metadata"]["name"])
            spec, theirs = o.get("spec", {}), other.get("spec", {})
            fixed = any(spec.get(f) != theirs.get(f) for f in FIXED.get(o["kind"], ()))
            if same and (fixed or o.get("type") != other.get("type")):
                found.append((other, o))
    return found


def taken(command: str, objects: list[Object]) -> set[tuple[str, str]]:
    """What a `kubectl delete KINDS -l SELECTOR` deletes."""
    found = re.fullmatch(r"kubectl delete ([a-z,]+) -l '?([^']+)'?", command)
    assert found, command
    kinds = found[1].split(",")
    wanted = [re.split(r" in |=", word) for word in re.split(r",(?![^(]*\))", found[2])]
    return {
        (o["kind"], o["metadata"]["name"])
        for o in objects
        if o["kind"].lower() in kinds
        and all(o["metadata"]["labels"].get(key) in values.strip("()").split(",") for key, values in wanted)
    }


def commands(old: str, new: str) -> list[str]:
    """Those that the README wants between two layouts."""
    found = [line.strip() for line in PART.splitlines() if line.startswith("    kubectl delete ")]
    of_statefulsets, of_groups, everything = found
    if {old, new} <= OF_STATEFULSETS:
        return []
    first = [of_groups] if old in IN_GROUPS else [of_statefulsets]
    return [*first, everything] if ALONE & {old, new} else first


PART = README.partition("**Another layout in place.**")[2].partition("\n**")[0]


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_the_readme_deletes_what_stands_in_the_way(old: str, new: str) -> None:
    """From every layout to every other: after its commands nothing stays behind and nothing is refused."""
    before, after = overlay(old), overlay(new)
    in_the_way = left_behind(before, after) | {
        (o["kind"], o["metadata"]["name"]) for o, _ in changed(before, after)
    }
    gone: set[tuple[str, str]] = set()
    for command in commands(old, new):
        gone |= taken(command, before)
    assert in_the_way <= gone
    assert bool(in_the_way) == bool(commands(old, new)), "a command for nothing"


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_another_layout_in_place_is_refused_with_what_makes_room(old: str, new: str) -> None:
    """Whatever would run beside the new one, a Secret is refused, and its words name a command that helps."""
    before, after = overlay(old), overlay(new)
    told = [o["type"] for _, o in changed(before, after) if o["kind"] == "Secret"]
    assert bool(told) == bool(commands(old, new)) or {old, new} == {"multi-node", "multi-node-2p2d"}
    gone: set[tuple[str, str]] = set()
    for words in told:
        gone |= taken(words[words.index("kubectl delete") :], before)
        if "(and leaderworkerset" in words:
            gone |= {(o["kind"], o["metadata"]["name"]) for o in of_kind(before, "LeaderWorkerSet")}
    # The driver refuses another number of nodes by itself, and a domain without pods does nothing.
    rest = left_behind(before, after) - gone
    assert rest <= {("ComputeDomain", "glm47")}
    for o, _ in changed(before, after):
        assert o["kind"] == "ComputeDomain" or (o["kind"], o["metadata"]["name"]) in gone


@pytest.mark.parametrize("layout", ["1p1d", "multi-node"])
def test_it_names_its_own_deployment(layout: str, tmp_path: Path) -> None:
    """And nothing of another one in the namespace."""
    for o in of_kind(second("green", layout, tmp_path), "Secret"):
        assert o["type"].endswith(",app.kubernetes.io/instance=green")
        command = o["type"][o["type"].index("kubectl delete") :]
        assert not taken(command, overlay(layout))
