"""A node that is gone without a word, with a worker of each role, a frontend and a member of etcd on it.

By hand, `-s -m k8s_more`: it prints what happens when. Takes eight minutes, five of them Kubernetes' own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.k8s.cluster import READY_WITHIN, Cluster, Pod, cluster
from tests.k8s.kubernetes import NODE, Kubernetes
from tests.k8s.load import load
from tests.k8s.machine import Machine

pytestmark = [pytest.mark.container, pytest.mark.k8s_more]
OTHER = "node-2"
SPREAD = ("frontend", "prefill", "decode")
COMPONENTS = {"prefill": "prefill", "decode": "backend"}
"""Dynamo's words for the roles."""
ALL = dict.fromkeys(COMPONENTS, 2)
EVICTED_WITHIN = 400.0
"""Seconds: 40 until the node is NotReady, 300 that pods tolerate, and some to spare."""


@pytest.fixture
def machine(kubernetes: Kubernetes, images: dict[str, str]) -> Iterator[Machine]:
    with Machine(kubernetes, {images["glm47-runner"]}, OTHER) as made:
        yield made


def node_of(pod: Pod) -> str:
    return str((pod.now() or {"spec": {}})["spec"].get("nodeName", ""))


def on(running: Cluster, component: str, node: str) -> list[Pod]:
    return [pod for pod in running.of(component) if node_of(pod) == node]


def move(running: Cluster, component: str, node: str, count: int) -> None:
    """Have no more than `count` pods of a component on the node, the others elsewhere."""
    running.kubernetes.kubectl("cordon", node)
    for pod in on(running, component, node)[count:]:
        pod.delete()
        running.until_replaced(pod)
    running.kubernetes.kubectl("uncordon", node)


def spread(running: Cluster) -> None:
    """One of two on each node; of etcd's members one, and not NATS, on the one that is lost."""
    for component in SPREAD:
        for node in (NODE, OTHER):
            move(running, component, node, 1)
    move(running, "etcd", OTHER, 1)
    move(running, "etcd", NODE, 2)
    move(running, "nats", OTHER, 0)
    running.until_ready()
    assert all(len(on(running, component, OTHER)) == 1 for component in (*SPREAD, "etcd"))


def listed(url: str) -> dict[str, int]:
    """How many workers of each role the frontend chooses from; empty while it does not say."""
    try:
        instances = httpx.get(f"{url}/health", trust_env=False, timeout=2).json()["instances"]
    except httpx.HTTPError:
        return {}
    generating = [each["component"] for each in instances if each["endpoint"] == "generate"]
    return {role: generating.count(component) for role, component in COMPONENTS.items()}


def look(running: Cluster, url: str, lost: list[Pod]) -> dict[str, str]:
    """What a person, and the frontend at `url`, would see."""
    found = {
        "what the other frontend lists": str(listed(url)),
        "the node is Ready": str(running.kubernetes.node_ready(OTHER)),
    }
    for pod in lost:
        now = pod.now() or {"metadata": {"deletionTimestamp": ""}, "status": {"conditions": []}}
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in now["status"]["conditions"])
        leaving = "deletionTimestamp" in now["metadata"]
        found[pod.name] = f"{'ready' if ready else 'not ready'}{', asked to end' if leaving else ''}"
    for pod in running.pods:
        if pod.name not in found and node_of(pod) == NODE:
            restarts = f", {pod.restarts} restarts" if pod.restarts else ""
            found[pod.name] = f"{'ready' if pod.ready else 'not ready'}{restarts}"
    return found


def watch(running: Cluster, url: str, lost: list[Pod], until: Callable[[], bool], seconds: float) -> None:
    """Print what changes, with the seconds since this call, until `until` holds."""
    began, known = time.monotonic(), look(running, url, lost)
    while True:
        now = look(running, url, lost)
        for what in now:
            if now[what] != known.get(what):
                print(f"| {time.monotonic() - began:.0f} s | {what}: {known.get(what, '-')} → {now[what]} |")
        known = now
        if until():
            return
        assert time.monotonic() - began < seconds, running.kubernetes.logs()
        time.sleep(0.3)


def test_a_node_dies(machine: Machine, kubernetes: Kubernetes, images: dict[str, str]) -> None:
    """The workers that are lost come back once somebody says that they are gone.

    Of those that are left one may have spoken with the lost member of etcd. Its connection is given up after
    a quarter of an hour only, its lease after 10 s, and until it is started anew nobody lists it.
    """
    with cluster(kubernetes, images, "mocker/2p2d") as running:
        running.until_ready(2 * READY_WITHIN)
        spread(running)
        lost = [on(running, component, OTHER)[0] for component in (*SPREAD, "etcd")]
        (kept,) = on(running, "frontend", NODE)
        survivors = [on(running, role, NODE)[0] for role in COMPONENTS]
        direct = f"http://{(kept.now() or {})['status']['podIP']}:8000"
        assert listed(direct) == ALL
        print(running.kubectl("get", "pods", "-o", "wide"))
        with load(running.url(), 2) as by_service, load(direct, 2) as by_frontend:
            running.until(lambda: by_frontend.answered_since(0) > 10, "the load is on")
            machine.dies()
            workers = [pod for pod in lost if pod.component in COMPONENTS]
            watch(running, direct, lost, lambda: all(map(leaving, workers)), EVICTED_WITHIN)
            print(running.kubectl("get", "pods", "-o", "wide"), running.kubernetes.kubectl("get", "nodes"))
            # The taint that does this for all of a node's pods is newer than this Kubernetes.
            forced = time.monotonic()
            for pod in lost:
                if pod.component != "frontend":
                    running.kubectl("delete", "pod", pod.name, "--force", "--grace-period=0")
            for pod in lost:
                if pod.component != "frontend":
                    assert node_of(running.until_replaced(pod)) == NODE
            running.until(lambda: all(listed(direct).values()), "one worker of each role is listed")
            print(f"| deleted by force: all of them ready | {time.monotonic() - forced:.0f} s |")
            for pod in survivors:
                if listed(direct)[pod.component] < 2:
                    print(f"| {pod.name} is ready, and on nobody's list: deleted |")
                    pod.delete()
                    running.until_replaced(pod)
            running.until(lambda: listed(direct) == ALL, "all workers are listed")
            running.until_ready()
            running.until(lambda: by_service.answered_since(forced) > 10, "the Service answers")
        print(f"| requests to the Service | {by_service.summary()} |")
        print(f"| requests to the frontend that was left | {by_frontend.summary()} |")
        print(running.kubectl("get", "pods", "-o", "wide"))


def leaving(pod: Pod) -> bool:
    now = pod.now()
    return now is None or "deletionTimestamp" in now["metadata"]
