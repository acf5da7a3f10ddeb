"""Checks objects against Kubernetes' schemas (kubernetes-validate) and custom ones against crds.yaml."""

from __future__ import annotations

import copy
import os
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from tests.k8s.manifests import Object

CONTAINER = {"name": "runner", "image": "any"}


@cache
def declared() -> dict[str, Any]:
    """The custom resources of crds.yaml, by kind."""
    text = Path(__file__).with_name("crds.yaml").read_text()
    result: dict[str, Any] = yaml.safe_load(text)
    return result


@cache
def published() -> dict[tuple[str, str], Any]:
    """Schemas of the CustomResourceDefinitions in GLM47_CRD_DIR, by kind and API version."""
    found = {}
    directory = os.environ.get("GLM47_CRD_DIR")
    for path in sorted(Path(directory).glob("*.y*ml")) if directory else ():
        for crd in yaml.safe_load_all(path.read_text()):
            for version in crd["spec"]["versions"]:
                name = f"{crd['spec']['group']}/{version['name']}"
                schema = version["schema"]["openAPIV3Schema"]
                found[crd["spec"]["names"]["kind"], name] = schema
    return found


def check(resource: Object, version: str) -> None:
    """Raise when a cluster of that Kubernetes version would not take `resource`, unknown fields included."""
    if resource["kind"] in declared():
        custom(resource, version)
    else:
        kubernetes_validate.validate(resource, version, strict=True)


def custom(resource: Object, version: str) -> None:
    known = declared()[resource["kind"]]
    assert resource["apiVersion"] == known["apiVersion"]
    assert set(resource) == {"apiVersion", "kind", "metadata", "spec"}
    _walk(resource["spec"], known["spec"], version)
    real = published().get((resource["kind"], resource["apiVersion"]))
    if real is not None:
        schema = {**real, "properties": {**real["properties"], "metadata": {"type": "object"}}}
        jsonschema.Draft202012Validator(closed(schema)).validate(resource)


def closed(schema: Any) -> Any:
    """`schema` with fields it does not name refused, as `kubectl apply` with strict validation does."""
    if not isinstance(schema, dict):
        return schema
    result = dict(schema)
    for key in ("properties", "patternProperties"):
        if isinstance(result.get(key), dict):
            result[key] = {name: closed(part) for name, part in result[key].items()}
    for key in ("items", "additionalProperties"):
        if key in result:
            result[key] = closed(result[key])
    open_ended = result.get("x-kubernetes-preserve-unknown-fields")
    if "properties" in result and "additionalProperties" not in result and not open_ended:
        result["additionalProperties"] = False
    if result.pop("x-kubernetes-int-or-string", False):
        result.pop("type", None)
    return result


def _walk(value: Any, schema: dict[str, Any], version: str) -> None:
    """Own parts by jsonschema, level by level; the parts of Kubernetes' own types by kubernetes-validate."""
    if kind := schema.get("x-core"):
        return _core(kind, value, version)
    if schema.get("type") == "object" and isinstance(value, dict):
        parts = schema.get("properties", {})
        other = schema.get("additionalProperties")
        assert set(schema.get("required", ())) <= set(value), (schema, value)
        for name, part in value.items():
            assert name in parts or other is not None, f"unknown field: {name}"
            _walk(part, parts.get(name, other), version)
        return None
    if schema.get("type") == "array" and isinstance(value, list):
        for item in value:
            _walk(item, schema["items"], version)
        return None
    return jsonschema.Draft202012Validator(schema).validate(value)


def _core(kind: str, value: Any, version: str) -> None:
    """A part that is of one of Kubernetes' own types, inside the smallest object that has it."""
    pod: Object = {"containers": [dict(CONTAINER)]}
    if kind == "PodTemplate":
        whole: Object = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "x"}, "template": value}
    elif kind == "PersistentVolumeClaim":
        whole = {"apiVersion": "v1", "kind": kind, **value}
    elif kind == "mainContainer":
        pod = copy.deepcopy(value)
        pod["containers"] = [{"name": "main", **pod.pop("mainContainer")}]
        whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod}
    else:
        pod["containers"][0][{"probe": "livenessProbe"}.get(kind, kind)] = value
        whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod}
    kubernetes_validate.validate(whole, version, strict=True)
