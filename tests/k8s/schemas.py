"""Checks objects as a cluster would: by Kubernetes' schemas, by crds.yaml and by published definitions."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from kubernetes_validate import utils

from tests.k8s.definitions import Schema, published, strict
from tests.k8s.manifests import Object

# It reads a release's definitions, a megabyte of JSON, anew for every object.
utils.schema_contents = cache(utils.schema_contents)


@cache
def declared() -> dict[str, Schema]:
    """The custom resources of crds.yaml, by `name`: strict schemas of whole objects."""
    known = yaml.safe_load(Path(__file__).with_name("crds.yaml").read_text())
    return {
        title: strict(
            {
                "type": "object",
                "required": ["apiVersion", "kind", "metadata", "spec"],
                "properties": {
                    "apiVersion": {"enum": [part["apiVersion"]]},
                    "kind": {"enum": [title.split()[0]]},
                    "metadata": {"x-core": "ObjectMeta"},
                    "spec": part["spec"],
                },
            }
        )
        for title, part in known.items()
    }


def name(resource: Object) -> str:
    """What crds.yaml calls a kind: with its version, where that has an entry of its own."""
    versioned = f"{resource['kind']} {resource['apiVersion'].rpartition('/')[2]}"
    return versioned if versioned in declared() else str(resource["kind"])


def check(resource: Object, version: str) -> None:
    """Raise ValidationError when a cluster of that Kubernetes version would not take `resource`.

    Fields that it would drop are errors too. A custom resource passes crds.yaml and each published definition
    of its kind that there is.
    """
    if name(resource) not in declared():
        _check(json.dumps(resource, sort_keys=True), version)
        return
    validator = _validator(version)
    validator(declared()[name(resource)]).validate(resource)
    for schema in published(resource["kind"], resource["apiVersion"]):
        validator(schema).validate(resource)


@cache
def _check(text: str, version: str) -> None:
    """By Kubernetes' own schema; layouts have most objects in common."""
    kubernetes_validate.validate(json.loads(text), version, strict=True)


@cache
def _validator(version: str) -> Any:
    """OpenAPI's schemas are draft 4's; with the parts of crds.yaml that are of Kubernetes' own types."""

    def core(_validator: Any, name: str, value: Any, _schema: Schema) -> Iterator[jsonschema.ValidationError]:
        try:
            kubernetes_validate.validate(_smallest(name, value), version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield jsonschema.ValidationError(f"{name}: {error.message}")

    return jsonschema.validators.extend(jsonschema.Draft4Validator, {"x-core": core})


def _smallest(name: str, value: Any) -> Object:
    """The smallest object of Kubernetes' own that has a part of that type."""
    named = {"metadata": {"name": "x"}}
    container = {"name": "main", "image": "any"}
    if name == "ObjectMeta":
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": value}
    if name == "PersistentVolumeClaimSpec":
        return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **named, "spec": value}
    if name == "LabelSelector":
        policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", **named}
        return {**policy, "spec": {"podSelector": value}}
    if name == "HorizontalPodAutoscalerBehavior":
        target = {"kind": "StatefulSet", "name": "x"}
        scaler = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", **named}
        return {**scaler, "spec": {"scaleTargetRef": target, "maxReplicas": 1, "behavior": value}}
    if name == "PodSpec":
        spec = value
    elif name == "ExtraPodSpec":
        # A pod's spec in which no container is required, with one besides, whose name is set.
        spec = copy.deepcopy(value) if isinstance(value, dict) else {}
        main = {"name": "main", **spec.pop("mainContainer", {})}
        spec["containers"] = [main, *spec.get("containers", [])]
    else:
        spec = {"containers": [{**container, {"EnvVars": "env", "Probe": "livenessProbe"}[name]: value}]}
    return {"apiVersion": "v1", "kind": "Pod", **named, "spec": spec}
