"""Every object that is rendered anywhere is valid, strictly, on each Kubernetes that is supported."""

from __future__ import annotations

import json
from functools import cache

import pytest

from tests.k8s import chart, schemas
from tests.k8s.manifests import LAYOUTS, OVERLAYS, Object, overlay
from tests.k8s.test_chart import EVERYTHING, SCALED

VERSIONS = tuple(f"1.{minor}" for minor in range(28, 38))
FIRST_WITH_CLAIMS = 31
"""Resource claims (DRA) have had their present form in a pod since this one."""


@cache
def rendered() -> list[Object]:
    """What kustomize and the chart make, each object once."""
    found: dict[str, Object] = {}
    others = ("bench", "second-deployment", "second-deployment/bench")
    everywhere = [overlay(name) for name in (*OVERLAYS, *others)]
    everywhere += [chart.render(chart.values(layout), EVERYTHING) for layout in LAYOUTS]
    everywhere += [chart.render(SCALED, {"autoscaling": {"by": name}}) for name in ("hpa", "keda")]
    everywhere.append(chart.render({"autoscaling": {"by": "keda", "authModes": "tls,basic"}}))
    for o in (o for objects in everywhere for o in objects):
        found[json.dumps(o, sort_keys=True)] = o
    return list(found.values())


@pytest.mark.parametrize("version", VERSIONS)
def test_objects_are_valid(version: str) -> None:
    looked_at = 0
    for o in rendered():
        if int(version.removeprefix("1.")) < FIRST_WITH_CLAIMS and "resourceClaims" in json.dumps(o):
            continue
        schemas.check(o, version)
        looked_at += 1
    assert looked_at > 50
