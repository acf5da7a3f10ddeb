"""Stand-ins for the controllers of Deployments, StatefulSets and LeaderWorkerSets, on one stand-in node."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.container.harness import LABEL, docker, wait_for
from tests.k8s import manifests
from tests.k8s.kubelet import Node, Pod
from tests.k8s.manifests import Object, PodSpec
from tests.k8s.service import Service

READY_WITHIN = 120.0


class Cluster:
    """The pods of rendered manifests. `start` it; every pod is removed when `cluster` ends."""

    def __init__(self, node: Node, objects: list[Object]) -> None:
        self.node = node
        self.objects = objects
        self.pods: list[Pod] = []
        self.removed: list[Pod] = []
        self._number = 0

    def start(self, spec: PodSpec) -> Pod:
        """Make a pod, reachable under the name of every Service that selects it."""
        names = tuple(
            s["metadata"]["name"]
            for s in manifests.of_kind(self.objects, "Service")
            if manifests.selects(s["spec"]["selector"], spec.labels) and s["spec"].get("clusterIP") != "None"
        )
        pod = Pod(self.node, spec, manifests.environ(spec, self.objects), names)
        self.pods.append(pod)
        return pod

    def start_all(self) -> None:
        for spec in manifests.pods(self.objects):
            self.start(spec)

    def of(self, component: str) -> list[Pod]:
        """The pods of one component that are not on their way out."""
        found = [p for p in self.pods if p.spec.labels["app.kubernetes.io/component"] == component]
        return [p for p in found if not p.deleting]

    def until_ready(self, seconds: float = READY_WITHIN) -> None:
        self.until(lambda: all(p.ready for p in self.pods), "every pod is ready", seconds)

    def until(self, condition: Callable[[], object], what: str, seconds: float = READY_WITHIN) -> None:
        def told() -> str:
            states = [f"{p.name}: ready {p.ready}, ended {p.ended}" for p in self.pods]
            return "\n".join([what, *states, *(p.logs()[-3000:] for p in self.pods if not p.ready)])

        wait_for(condition, seconds, told)

    @contextmanager
    def service(self, name: str = "glm47") -> Iterator[Service]:
        """The Service's address, by the stand-in for kube-proxy."""
        found = manifests.named(self.objects, "Service", name)["spec"]

        def chosen() -> list[Pod]:
            return [p for p in list(self.pods) if manifests.selects(found["selector"], p.spec.labels)]

        with Service(chosen, found["ports"][0]["port"]) as service:
            yield service

    def rolling_update(self, component: str) -> None:
        """A Deployment's, with maxSurge 1 and maxUnavailable 0: a new pod is ready, then an old one goes.

        As the controller, it does not wait until the old one is gone.
        """
        for old in self.of(component):
            self._number += 1
            spec = old.spec
            new = self.start(PodSpec(f"{spec.owner}-r{self._number}", spec.owner, spec.labels, spec.spec))
            self.until(lambda new=new: new.ready, f"{new.name} is ready")
            old.delete(wait=False)

    def forget(self, pod: Pod) -> None:
        """Delete a pod for good."""
        pod.delete()
        self.pods.remove(pod)
        self.removed.append(pod)

    def recreate(self, pod: Pod) -> Pod:
        """A StatefulSet's pod that was deleted: once it is gone, one of the same name comes."""
        self.forget(pod)
        return self.start(pod.spec)

    def recreate_group(self, owner: str) -> list[Pod]:
        """LeaderWorkerSet's RecreateGroupOnPodRestart: the whole group goes, and comes back."""
        old = [p for p in self.pods if p.spec.owner == owner]
        for pod in old:
            pod.delete(wait=False)
        return [self.recreate(p) for p in old]


@contextmanager
def cluster(image: str, overlay: str, root: Path) -> Iterator[Cluster]:
    """The pods of k8s/<overlay>, started."""
    objects = manifests.overlay(overlay)
    name = f"glm47-k8s-{time.monotonic_ns()}"
    with ExitStack() as stack:
        docker("network", "create", "--label", LABEL, name)
        stack.callback(docker, "network", "rm", name, check=False)
        node = Node(image, name, root, services=tuple(manifests.of_kind(objects, "Service")))
        made = Cluster(node, objects)

        def clean() -> None:
            for pod in [*made.pods, *made.removed]:
                pod.remove()

        stack.callback(clean)
        made.start_all()
        yield made
