"""Rendered manifests in a namespace of the real cluster, and their pods as a test looks at them."""

from __future__ import annotations

import json
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.container.harness import client, docker, wait_for
from tests.k8s import manifests
from tests.k8s.kubernetes import Kubernetes
from tests.k8s.manifests import Object, PodSpec

READY_WITHIN = 120.0
COMPONENT = "app.kubernetes.io/component"


@dataclass(frozen=True)
class Ended:
    """How a container ended, as the Docker engine saw it."""

    code: int
    seconds: float
    """From its SIGTERM; 0 when it got none."""


class Endings:
    """Hears from the Docker engine how the pods' containers end. A context manager."""

    def __init__(self) -> None:
        self._ended: dict[str, list[Ended]] = {}
        self._signalled: dict[str, float] = {}

    def __enter__(self) -> Endings:
        filters = ("label=io.kubernetes.container.name=runner", "event=kill", "event=die")
        self._process = subprocess.Popen(
            [client() or "docker", "events", "--format={{json .}}", *(f"--filter={f}" for f in filters)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._thread.join(10)

    def of(self, uid: str) -> list[Ended]:
        """The ends of the pod's containers, the first one first."""
        return list(self._ended.get(uid, ()))

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            about, moment = event["Actor"]["Attributes"], event["timeNano"] / 1e9
            container = event["Actor"]["ID"]
            if event["Action"] == "die":
                seconds = moment - self._signalled.pop(container, moment)
                ended = self._ended.setdefault(about["io.kubernetes.pod.uid"], [])
                ended.append(Ended(int(about["exitCode"]), seconds))
            elif about["signal"] == "15":
                self._signalled.setdefault(container, moment)


class Pod:
    """One pod, from its making to its end."""

    def __init__(self, cluster: Cluster, found: Object) -> None:
        self.name: str = found["metadata"]["name"]
        self.uid: str = found["metadata"]["uid"]
        self.labels: Mapping[str, str] = found["metadata"]["labels"]
        self.spec: Object = found["spec"]
        self._cluster = cluster

    @property
    def component(self) -> str:
        return self.labels[COMPONENT]

    def __repr__(self) -> str:
        return f"{self.name}: ready {self.ready}, ended {self.ended}, {self.events()}"

    def now(self) -> Object | None:
        """The pod as the API has it; None once it is gone."""
        pod = self._cluster.kubernetes.get(f"{self._cluster.path}/pods/{self.name}")
        return pod if pod and pod["metadata"]["uid"] == self.uid else None

    @property
    def container(self) -> Object:
        """Status of its only container; empty before it has one."""
        statuses = (self.now() or {}).get("status", {}).get("containerStatuses", [{}])
        result: Object = statuses[0]
        return result

    @property
    def ready(self) -> bool:
        return bool(self.container.get("ready"))

    @property
    def restarts(self) -> int:
        return int(self.container.get("restartCount", 0))

    @property
    def ended(self) -> list[Ended]:
        return self._cluster.endings.of(self.uid)

    @property
    def message(self) -> str:
        """Why its container ended last, as `kubectl describe pod` says it."""
        states = [self.container.get(name, {}).get("terminated") for name in ("state", "lastState")]
        return str(next((s["message"] for s in states if s and "message" in s), "")).strip()

    def events(self) -> list[str]:
        """What the kubelet has told about it: reason and text."""
        about = f"involvedObject.uid={self.uid}"
        found = self._cluster.kubernetes.items(f"{self._cluster.path}/events", fieldSelector=about)
        return [f"{e['reason']}: {e['message']}" for e in found]

    def told(self, words: str) -> bool:
        """Whether an event has these words."""
        return any(words in event for event in self.events())

    def logs(self) -> str:
        return f"--- {self!r}\n" + self._cluster.kubectl("logs", self.name, check=False)

    def exec(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = self._cluster.kubernetes.kubectl_done(
            "exec", f"--namespace={self._cluster.namespace}", self.name, "--", *words
        )
        assert not check or done.returncode == 0, done
        return done

    def pid(self) -> int:
        """Of the container's first process, as the machine sees it."""
        container = self.container["containerID"].removeprefix("docker://")
        return int(docker("inspect", "-f", "{{.State.Pid}}", container).stdout)

    def delete(self) -> None:
        """What `kubectl delete pod` does, without waiting."""
        self._cluster.kubectl("delete", "pod", self.name, "--wait=false")

    def until_ended(self) -> Ended:
        """Wait for the container of a deleted pod; how it ended."""
        grace = self.spec["terminationGracePeriodSeconds"]
        wait_for(lambda: self.ended, grace + 60, f"{self.name} has ended")
        return self.ended[-1]

    def until_gone(self) -> None:
        """Wait until a deleted pod's name is free, which takes the kubelet longer than its container does."""
        wait_for(lambda: self.now() is None, READY_WITHIN, f"{self.name} is gone")


class Cluster:
    """The objects of one overlay in a namespace of their own."""

    def __init__(
        self, kubernetes: Kubernetes, endings: Endings, objects: list[Object], images: Mapping[str, str]
    ) -> None:
        self.kubernetes = kubernetes
        self.endings = endings
        self.objects = objects
        self.namespace = f"test-{uuid.uuid4().hex[:6]}"
        self.path = f"/api/v1/namespaces/{self.namespace}"
        """Of this namespace in the API."""
        self._images = images

    def kubectl(self, *words: str, check: bool = True, timeout: float = 60) -> str:
        """One kubectl command in this namespace."""
        return self.kubernetes.kubectl(*words, f"--namespace={self.namespace}", check=check, timeout=timeout)

    def start(self) -> None:
        self.kubernetes.kubectl("create", "namespace", self.namespace)
        account = f"{self.path}/serviceaccounts/default"
        wait_for(lambda: self.kubernetes.get(account), 30, "the namespace's service account is there")
        groups = manifests.of_kind(self.objects, "LeaderWorkerSet")
        rest = [o for o in self.objects if o not in groups]
        self.apply(rest)
        for group in groups:
            self.kubernetes.apply([_headless(group)], self.namespace)
            self.start_group(group["metadata"]["name"])

    def apply(self, objects: list[Object]) -> None:
        """More objects, as this cluster can have them."""
        self.kubernetes.apply([self._fitted(o) for o in objects], self.namespace)

    def start_group(self, name: str) -> None:
        """The pods of a LeaderWorkerSet, of which no controller is here."""
        made = manifests.pods([manifests.named(self.objects, "LeaderWorkerSet", name)], self.namespace)
        self.apply([_pod(spec, name) for spec in made])

    def start_pod(self, spec: PodSpec, name: str) -> Pod:
        """A pod by itself, which no Service selects, of a component of its own called `name`."""
        spec.labels = {**spec.labels, COMPONENT: name}
        spec.name = name
        self.apply([_pod(spec, "")])
        (made,) = self.of(name)
        return made

    def _fitted(self, given: Object) -> Object:
        """The object as this cluster can have it: its image, two cores, an old API."""
        o: Object = json.loads(json.dumps(given))
        if o["kind"] == "PodDisruptionBudget":
            o["apiVersion"] = "policy/v1beta1"
            del o["spec"]["unhealthyPodEvictionPolicy"]  # since 1.26
        templates = [template for _, template in manifests.templates([o])]
        if o["kind"] in ("Job", "Pod"):
            templates.append(o["spec"].get("template", o))
        for template in templates:
            for container in template["spec"]["containers"]:
                container["image"] = self._images[container["image"].rpartition(":")[0]]
                container["resources"]["requests"]["cpu"] = "10m"
        return o

    @property
    def pods(self) -> list[Pod]:
        """All pods that are not on their way out."""
        found = self.kubernetes.items(f"{self.path}/pods")
        return [Pod(self, p) for p in found if "deletionTimestamp" not in p["metadata"]]

    def of(self, component: str) -> list[Pod]:
        """Those of one component."""
        return [p for p in self.pods if p.component == component]

    def until(self, condition: Callable[[], Any], what: str, seconds: float = READY_WITHIN) -> Any:
        def told() -> str:
            return "\n".join([what, *(p.logs()[-3000:] for p in self.pods), self.kubernetes.logs()])

        return wait_for(condition, seconds, told)

    def until_ready(self, seconds: float = READY_WITHIN) -> None:
        """Every pod that is wanted is there and ready."""
        self.until(self._complete, "every pod is ready", seconds)

    def _complete(self) -> bool:
        apps = f"/apis/apps/v1/namespaces/{self.namespace}"
        owners = [
            o for kind in ("deployments", "statefulsets") for o in self.kubernetes.items(f"{apps}/{kind}")
        ]
        wanted = sum(o["spec"]["replicas"] for o in owners) + sum(
            o["spec"]["replicas"] * o["spec"]["leaderWorkerTemplate"]["size"]
            for o in manifests.of_kind(self.objects, "LeaderWorkerSet")
        )
        pods = self.pods
        return len(pods) == wanted and all(p.ready for p in pods)

    def url(self, service: str = "glm47") -> str:
        """The Service's own address, which kube-proxy answers on this machine too."""
        found = self.kubernetes.get(f"{self.path}/services/{service}")
        assert found, f"no service {service}"
        spec = found["spec"]
        return f"http://{spec['clusterIP']}:{spec['ports'][0]['port']}"

    def until_replaced(self, old: Pod) -> Pod:
        """The ready pod of the same name that its controller made instead."""

        def found() -> Pod | None:
            same = [p for p in self.pods if p.name == old.name and p.uid != old.uid]
            return same[0] if same and same[0].ready else None

        new = self.until(found, f"there is a new {old.name}")
        assert isinstance(new, Pod)
        return new


def _pod(spec: PodSpec, service: str) -> Object:
    """The pod that a controller would make, with scratch space for its claims; `service`: a headless one."""
    volumes = [*spec.spec["volumes"], *({"name": name, "emptyDir": {}} for name in spec.claims)]
    names = {"hostname": spec.name, "subdomain": service} if service else {}
    made = {**spec.spec, **names, "volumes": volumes}
    made["containers"][0]["env"] += [{"name": k, "value": v} for k, v in spec.environ.items()]
    metadata = {"name": spec.name, "labels": dict(spec.labels)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": made}


def _headless(group: Object) -> Object:
    """The Service that LeaderWorkerSet's controller makes for its pods' names."""
    labels = group["spec"]["leaderWorkerTemplate"]["workerTemplate"]["metadata"]["labels"]
    return {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": group["metadata"]["name"]},
        "spec": {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": labels},
    }  # fmt: skip


@contextmanager
def cluster(
    kubernetes: Kubernetes,
    images: Mapping[str, str],
    overlay: str,
    change: Callable[[Object], None] = lambda template: None,
) -> Iterator[Cluster]:
    """k8s/<overlay>, applied; `images`: the image under test by the name in the manifests.

    `change` is given each pod template, and may change it.
    """
    with Endings() as endings:
        objects = manifests.overlay(overlay)
        for _, template in manifests.templates(objects):
            change(template)
        made = Cluster(kubernetes, endings, objects, images)
        try:
            made.start()
            yield made
        finally:
            kubernetes.delete_pods(made.namespace)
            kubernetes.kubectl("delete", "namespace", made.namespace, "--wait=false", check=False)
