"""The Helm chart, rendered by Helm's own code, and what tests compare it with."""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bench.releases import UnavailableError
from tests.k8s.manifests import K8S, LAYOUTS, LOADER, Object
from tests.support.available import available

if TYPE_CHECKING:
    from types import ModuleType

CHART = K8S / "chart"
RELEASE = "glm47"
OF_HELM = ("app.kubernetes.io/managed-by", "helm.sh/chart")


def helm() -> ModuleType:
    """Its Python package; skips without it, fails when CI=true."""

    def get() -> ModuleType:
        try:
            return import_module("helm_python")
        except ImportError as error:
            raise UnavailableError(f"no helm-python-sdk: {error}") from error

    return available(get)


def values(layout: str) -> Object:
    """Those of k8s/chart/layouts."""
    assert layout in LAYOUTS
    found: Object = yaml.safe_load((CHART / "layouts" / f"{layout}.yaml").read_text())
    return found


def merged(*parts: Object) -> Object:
    """Values, the later ones over the earlier."""
    result: Object = {}
    for part in parts:
        for key, value in part.items():
            inner = result.get(key)
            result[key] = (
                merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
            )
    return result


def render(*parts: Object, release: str = RELEASE, chart: Path = CHART) -> list[Object]:
    """The objects of an install, its hooks and its test too; a helm_python.HelmError for wrong values."""
    with helm().Chart.load(chart) as loaded:
        loaded.validate_schema(merged(*parts))
        rendered = loaded.render(merged(*parts), name=release, namespace="default")
    return [o for text in rendered.values() for o in yaml.load_all(text, LOADER) if o]


def is_hook(o: Object) -> bool:
    return "helm.sh/hook" in o["metadata"].get("annotations", {})


def comparable(objects: list[Object]) -> dict[str, Any]:
    """Objects by kind and name, without Helm's labels and a ConfigMap's hash; lists in one order.

    The chart has one image unless a value says otherwise, where kustomize has two names of it.
    """
    text = re.sub(r"(-settings)-[a-z0-9]{10}\b", r"\1", json.dumps([o for o in objects if not is_hook(o)]))
    text = text.replace("glm47-runner-servers:", "glm47-runner:")
    result = {}
    for o in json.loads(text):
        for label in OF_HELM:
            o["metadata"]["labels"].pop(label, None)
        result[f"{o['kind']}/{o['metadata']['name']}"] = in_order(o)
    return result


def in_order(value: Any) -> Any:
    """Lists in an order that does not tell how they came about, without what is empty."""
    if isinstance(value, dict):
        return {k: in_order(v) for k, v in value.items()}
    if isinstance(value, list):
        return sorted((in_order(v) for v in value), key=repr)
    return value
