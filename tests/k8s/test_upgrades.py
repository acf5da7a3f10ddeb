"""Upgrades and losses under load, with two workers of each role: what requests notice of them.

By hand, `-s -m k8s_more`: it prints a row of a table for each.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.container.harness import docker
from tests.k8s.cluster import READY_WITHIN, Cluster, Pod, cluster
from tests.k8s.kubernetes import Kubernetes
from tests.k8s.load import Load, load

pytestmark = [pytest.mark.container, pytest.mark.k8s_more]
WORKERS = ("prefill", "decode")
SERVERS = ("etcd", "nats")
CLIENTS, TOKENS = 2, 32


@pytest.fixture(scope="module")
def running(kubernetes: Kubernetes, images: dict[str, str]) -> Iterator[Cluster]:
    """2p2d with the mocker, ready."""
    docker("tag", images["glm47-runner"], "glm47-runner:k8s-new")
    with cluster(kubernetes, images, "mocker/2p2d") as made:
        made.until_ready()
        yield made


def lives(running: Cluster, *components: str) -> dict[str, tuple[str, int]]:
    """What a pod that was replaced or restarted has not kept, by its name."""
    return {p.name: (p.uid, p.restarts) for c in components for p in running.of(c)}


@contextmanager
def under_load(running: Cluster, what: str, tokens: int = TOKENS, clients: int = CLIENTS) -> Iterator[Load]:
    """Requests come before, during and after what is done within; the row of a table is printed."""
    with load(running.url(), clients, tokens, timeout=60) as asked:
        running.until(lambda: asked.answered_since(0) > 10, "the load is on")
        began = time.monotonic()
        yield asked
        running.until(running._complete, "every pod is ready")
        over = time.monotonic()
        running.until(lambda: asked.answered_since(over) > 10, "requests are answered again")
    print(f"\n| {what} | {over - began:.0f} s | {asked.summary()} |")


def set_image(running: Cluster, image: str) -> None:
    """What `apply -k` with a new tag of the workers' image does, to its end."""
    for component in WORKERS:
        running.kubectl("set", "image", f"statefulset/glm47-{component}", f"runner={image}")
    for component in WORKERS:
        words = ("rollout", "status", f"statefulset/glm47-{component}", f"--timeout={2 * READY_WITHIN:g}s")
        running.kubectl(*words, timeout=2 * READY_WITHIN + 10)


def test_a_member_is_lost(running: Cluster) -> None:
    """Each of etcd's members in turn: nobody else ends, and no request fails."""
    before = lives(running, *WORKERS, "frontend")
    with under_load(running, "each etcd member deleted in turn") as asked:
        for member in running.of("etcd"):
            member.delete()
            running.until_replaced(member)
    assert not asked.failed, asked.failed
    assert lives(running, *WORKERS, "frontend") == before


def test_a_new_image_for_the_workers(running: Cluster) -> None:
    """Workers of a role are replaced one by one; etcd and NATS stay as they are."""
    before, old = lives(running, *SERVERS), lives(running, *WORKERS)
    with under_load(running, "new image: 2 prefill and 2 decode workers roll") as asked:
        set_image(running, "glm47-runner:k8s-new")
    assert lives(running, *SERVERS) == before
    assert all(uid != old[name][0] for name, (uid, _) in lives(running, *WORKERS).items())
    # Not 0: a frontend may send a request in the moment of a withdrawal.
    assert len(asked.failed) <= 2, asked.failed


# -- measured by hand


def kill_worker(pod: Pod) -> None:
    pod.exec("pkill", "-KILL", "-f", "dynamo.mocker")


def kill_container(pod: Pod) -> None:
    """As out of memory does: nobody is left who could take the worker off the list."""
    os.kill(pod.pid(), signal.SIGKILL)


def one_by_one(component: str, act: Callable[[Pod], Any]) -> Callable[[Cluster], None]:
    """`act` on each pod of a component, the next one once the last one is back."""

    def run(running: Cluster) -> None:
        for pod in running.of(component):
            before = pod.restarts
            act(pod)
            running.until(lambda: pod.now() is None or pod.restarts > before, "it is gone")  # noqa: B023
            running.until(running._complete, "every pod is ready")

    return run


def away(component: str, seconds: float) -> Callable[[Cluster], None]:
    """All pods of a server are gone for a while."""

    def run(running: Cluster) -> None:
        count = len(running.of(component))
        running.kubectl("scale", f"statefulset/glm47-{component}", "--replicas=0")
        running.until(lambda: not running.of(component), "they are gone")
        time.sleep(seconds)
        running.kubectl("scale", f"statefulset/glm47-{component}", f"--replicas={count}")
        running.until(lambda: len(running.of(component)) == count, "they are back")

    return run


CASES: dict[str, Callable[[Cluster], None]] = {
    "each prefill worker killed (-9)": one_by_one("prefill", kill_worker),
    "each decode worker killed (-9)": one_by_one("decode", kill_worker),
    "each decode container killed (-9), its runner too": one_by_one("decode", kill_container),
    "each prefill worker's pod deleted": one_by_one("prefill", Pod.delete),
    "each decode worker's pod deleted": one_by_one("decode", Pod.delete),
    "each etcd member killed (-9)": one_by_one("etcd", lambda pod: pod.exec("pkill", "-KILL", "-x", "etcd")),
    "NATS away for 60 s": away("nats", 60),
    "all of etcd away for 60 s": away("etcd", 60),
}


@pytest.mark.parametrize("tokens", [TOKENS, 400])
@pytest.mark.parametrize("case", CASES)
def test_measured(running: Cluster, case: str, tokens: int) -> None:
    before = lives(running, *WORKERS, "frontend")
    with under_load(running, f"{case}, {tokens} tokens", tokens):
        CASES[case](running)
    after = lives(running, *WORKERS, "frontend")
    print(f"| | replaced or restarted: {sorted(n for n in after if after[n] != before.get(n))} |")
