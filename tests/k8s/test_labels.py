"""Every object has the labels that Kubernetes recommends."""

from __future__ import annotations

from pathlib import Path

import pytest

from entrypoint import __version__
from tests.k8s.manifests import K8S, OVERLAYS, Object, build, of_kind, overlay, with_component

COMPONENTS = (
    *("events", "external-servers", "hpa", "keda", "kubernetes-discovery", "monitoring", "nvlink-domain"),
    *("keda-auth", "rdma", "status-token"),
)


def complete(objects: list[Object]) -> None:
    for each in objects:
        labels = each["metadata"].get("labels", {})
        prefix = "app.kubernetes.io/"
        told = {name.removeprefix(prefix): value for name, value in labels.items() if name.startswith(prefix)}
        assert told.pop("component"), each["metadata"]
        assert told == {
            "name": "glm47",
            "instance": "glm47",
            "part-of": "glm47-runner",
            "managed-by": "kustomize",
            "version": __version__,
        }, each["metadata"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_objects_of_a_layout(name: str) -> None:
    complete(overlay(name))


@pytest.mark.parametrize("component", COMPONENTS)
def test_the_objects_of_a_component(component: str, tmp_path: Path) -> None:
    complete(with_component(component, tmp_path))


def test_the_objects_of_the_benchmark() -> None:
    objects = build(K8S / "bench")
    complete(objects)
    assert of_kind(objects, "Job")


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_version_selects_nothing(name: str) -> None:
    """A new one must not need new StatefulSets: their selectors cannot be changed."""
    for each in overlay(name):
        selector = each.get("spec", {}).get("selector", {})
        assert not any(
            "version" in key or "managed-by" in key for key in selector.get("matchLabels", selector)
        )
