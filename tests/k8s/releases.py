"""Helm's own install, upgrade, rollback, test and uninstall on the tests' Kubernetes (helm-python-sdk)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from tests.k8s import chart
from tests.k8s.kubernetes import Kubernetes
from tests.k8s.manifests import Object

WITHIN = 120
"""Seconds that Helm waits for what it made."""


def fitted(directory: Path) -> Path:
    """A copy of the chart as a Kubernetes of 1.20 can have it."""
    copied = directory / "chart"
    shutil.copytree(chart.CHART, copied)
    about = copied / "Chart.yaml"
    lines = about.read_text().splitlines(keepends=True)
    # Built from a source package, it does not know its own version.
    about.write_text("".join(line for line in lines if not line.startswith("kubeVersion:")))
    for path in (copied / "files").glob("*.json"):
        objects = json.loads(path.read_text())
        for o in objects.values():
            if isinstance(o, dict) and o.get("kind") == "PodDisruptionBudget":
                o["apiVersion"] = "policy/v1beta1"
                del o["spec"]["unhealthyPodEvictionPolicy"]  # since 1.26
        path.write_text(json.dumps(objects))
    return copied


class Release:
    """A release of the chart in a namespace of its own. A context manager."""

    def __init__(self, kubernetes: Kubernetes, directory: Path, namespace: str) -> None:
        self.kubernetes = kubernetes
        self.namespace = namespace
        self._chart = fitted(directory)
        self._config: Any = None

    def __enter__(self) -> Release:
        self.kubernetes.kubectl("create", "namespace", self.namespace)
        self._config = chart.helm().Config(kubeconfig_path=self.kubernetes.config, namespace=self.namespace)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._config.close()
        self.kubernetes.delete_pods(self.namespace)
        self.kubernetes.kubectl("delete", "namespace", self.namespace, "--wait=false", check=False)

    def kubectl(self, *words: str) -> str:
        return self.kubernetes.kubectl(*words, f"--namespace={self.namespace}")

    def install(self, values: Object, wait: str | None = "watcher") -> None:
        """As Helm 3 does, on the client: server-side apply of 1.20 has faults that later ones have not."""
        config = import_module("helm_python.config")
        options = config._opts
        with pytest.MonkeyPatch.context() as patch:
            # The library takes it, its Python has no word for it. Later actions do as the first one did.
            patch.setattr(config, "_opts", lambda **given: options(server_side_apply=False, **given))
            self._config.install(self._chart, chart.RELEASE, values, timeout=WITHIN, wait=wait)

    def upgrade(self, values: Object, wait: str | None = "watcher") -> None:
        self._config.upgrade(self._chart, chart.RELEASE, values, timeout=WITHIN, wait=wait)

    def rollback(self, revision: int) -> None:
        self._config.rollback(chart.RELEASE, version=revision, timeout=WITHIN, wait="watcher")

    def test(self) -> str:
        """`helm test`: the logs of its pods."""
        done = self._config.test(chart.RELEASE, timeout=WITHIN, logs=True)
        return str(done.get("logs", ""))

    def uninstall(self) -> None:
        self._config.uninstall(chart.RELEASE, timeout=WITHIN, wait="watcher")

    def history(self) -> list[tuple[int, str]]:
        """(revision, status), the first one first."""
        return [(r["revision"], r["status"]) for r in self._config.history(chart.RELEASE)]

    def items(self, path: str) -> list[Mapping[str, Any]]:
        """What the namespace has of a kind; `path`: such as apis/apps/v1/statefulsets."""
        group, _, kind = path.rpartition("/")
        return list(self.kubernetes.items(f"/{group}/namespaces/{self.namespace}/{kind}"))

    def names(self, path: str) -> set[str]:
        return {str(o["metadata"]["name"]) for o in self.items(path)}

    def pods(self) -> dict[str, str]:
        """Uids by name."""
        return {str(p["metadata"]["name"]): str(p["metadata"]["uid"]) for p in self.items("api/v1/pods")}
