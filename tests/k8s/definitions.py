"""The published definitions of custom resources, made strict: from files and from a package."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.k8s.manifests import LOADER, Object

Schema = dict[str, Any]
DIRECTORY = "GLM47_CRD_DIR"


def strict(schema: Any) -> Any:
    """An OpenAPI schema of a definition as a JSON schema that refuses every field that it does not name.

    A cluster drops such fields, and `kubectl apply` refuses them. Also where an object has no properties at
    all: only x-kubernetes-preserve-unknown-fields lets anything pass. Rules in CEL are not carried out.
    """
    if not isinstance(schema, dict):
        return schema
    result = dict(schema)
    for key in ("properties", "$defs"):
        if key in result:
            result[key] = {name: strict(part) for name, part in result[key].items()}
    for key in ("items", "additionalProperties"):
        if key in result:
            result[key] = strict(result[key])
    if result.get("x-kubernetes-embedded-resource"):
        named: Schema = {"apiVersion": {}, "kind": {}, "metadata": {}}
        result["properties"] = {**named, **result.get("properties", {})}
    is_object = result.get("type") == "object" or "properties" in result
    is_open = result.get("x-kubernetes-preserve-unknown-fields") or "x-core" in result
    if is_object and not is_open and "additionalProperties" not in result:
        result["additionalProperties"] = False
    if result.get("x-kubernetes-int-or-string"):
        result["type"] = ["integer", "string"]
    if result.get("nullable") and "type" in result:
        kinds = result["type"]
        result["type"] = [*(kinds if isinstance(kinds, list) else [kinds]), "null"]
    return result


def published(kind: str, api_version: str) -> list[Schema]:
    """The definitions of a kind that there are here, made strict, for whole objects.

    AssertionError if GLM47_CRD_DIR is set and has none of that kind and version: what was to be checked must
    not pass unchecked.
    """
    found = []
    if packaged := _packaged().get((kind, api_version)):
        found.append(packaged)
    if directory := os.environ.get(DIRECTORY):
        there = _directory(directory)
        assert (kind, api_version) in there, (
            f"cannot check {kind} of {api_version}: {DIRECTORY}={directory} has {sorted(there) or 'none'}: "
            "save its CustomResourceDefinition there as YAML"
        )
        found.append(there[kind, api_version])
    return found


@cache
def _directory(directory: str) -> dict[tuple[str, str], Schema]:
    """Definitions in a directory's YAML files, by kind and API version; other objects are passed over."""
    found = {}
    for path in sorted(Path(directory).glob("*.y*ml")):
        for definition in _definitions(yaml.load_all(path.read_text(), LOADER)):
            spec = definition["spec"]
            for version in spec["versions"]:
                if version["served"]:
                    schema = version["schema"]["openAPIV3Schema"]
                    found[spec["names"]["kind"], f"{spec['group']}/{version['name']}"] = _whole(
                        strict(schema)
                    )
    return found


def _definitions(documents: Iterator[Object | None]) -> Iterator[Object]:
    """As files have them, and as `kubectl get crd A B -o yaml` prints several."""
    for document in documents:
        if document is None:
            continue
        if document["kind"] == "List":
            yield from _definitions(iter(document["items"]))
        elif document["kind"] == "CustomResourceDefinition":
            yield document


def _whole(schema: Schema) -> Schema:
    """For objects with metadata: a cluster checks that by itself, definitions leave it open."""
    return {**schema, "properties": {**schema["properties"], "metadata": {"type": "object"}}}


@cache
def _packaged() -> dict[tuple[str, str], Schema]:
    """From cloudcoil's models, which are made from prometheus-operator's own definitions."""
    models = importlib.import_module("cloudcoil.models.prometheus_operator.v1")
    return {
        (kind, "monitoring.coreos.com/v1"): _whole(
            strict(_without_null(getattr(models, kind).model_json_schema(by_alias=True)))
        )
        for kind in ("ServiceMonitor", "PodMonitor", "PrometheusRule")
    }


def _without_null(schema: Any) -> Any:
    """In Python's models, a field that may be left out may be null; in the definition it may not."""
    if isinstance(schema, list):
        return [_without_null(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: _without_null(part) for key, part in schema.items()}
    if isinstance(options := result.get("anyOf"), list):
        left = [option for option in options if option != {"type": "null"}]
        if len(left) == 1:
            return {**{key: part for key, part in result.items() if key != "anyOf"}, **left[0]}
        result["anyOf"] = left
    return result
