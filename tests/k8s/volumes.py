"""A volume for every claim, and none once the claim is gone: a storage class's provisioner, in short.

All nodes of the tests are one machine, so a volume goes with its pod to any of them, as network storage does.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

Object = dict[str, Any]


class Api(Protocol):
    """Of the cluster's API what is used here."""

    def items(self, path: str, **query: str) -> list[Object]: ...
    def apply(self, objects: Sequence[Mapping[str, Any]]) -> None: ...
    def kubectl(self, *words: str, check: bool = True) -> str: ...


class Volumes:
    """Looked after by calls of `keep`; the volumes are directories of `root`."""

    def __init__(self, api: Api, root: Path) -> None:
        self._api = api
        self._root = root

    def keep(self) -> None:
        """One look: make what claims wait for, take away what no claim has any more."""
        volumes = {v["metadata"]["name"]: v for v in self._api.items("/api/v1/persistentvolumes")}
        claims = self._api.items("/api/v1/persistentvolumeclaims")
        wanted = [c for c in claims if not c["spec"].get("volumeName") and _name(c) not in volumes]
        if wanted:
            self._api.apply([self._volume(claim) for claim in wanted])
        released = [name for name, v in volumes.items() if v.get("status", {}).get("phase") == "Released"]
        if released:
            self._api.kubectl("delete", "persistentvolumes", *released, "--wait=false")
            for name in released:
                shutil.rmtree(self._root / name, ignore_errors=True)

    def _volume(self, claim: Object) -> Object:
        path = self._root / _name(claim)
        path.mkdir(parents=True, exist_ok=True)
        about = claim["metadata"]
        anywhere = {"key": "kubernetes.io/os", "operator": "Exists"}
        return {
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": _name(claim)},
            "spec": {
                "capacity": {"storage": "1Ti"}, "accessModes": claim["spec"]["accessModes"],
                # Not hostPath: only what is `local` is given to the pod's group.
                "local": {"path": str(path)}, "persistentVolumeReclaimPolicy": "Retain",
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [anywhere]}]}},
                "claimRef": {
                    "kind": "PersistentVolumeClaim", "apiVersion": "v1",
                    "namespace": about["namespace"], "name": about["name"], "uid": about["uid"],
                },
            },
        }  # fmt: skip


def _name(claim: Object) -> str:
    return f"volume-{claim['metadata']['uid']}"
