"""Upgrades and losses under load, with two workers of each role: what requests notice of them.

Each prints a row of a table (`-s`). Most are for a person: `-m k8s_more`.
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
from tests.k8s.cluster import READY_WITHIN, Cluster, Pod
from tests.k8s.load import Load, load

pytestmark = pytest.mark.container
WORKERS = ("prefill", "decode")
SERVERS = ("etcd", "nats")
NEW = "glm47-runner:k8s-new"
CLIENTS, TOKENS = 2, 32


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
    """What `apply -k` with a new tag of the runner's image does, to its end."""
    owners = ["deployment/glm47-frontend", *(f"statefulset/glm47-{role}" for role in WORKERS)]
    running.kubectl("set", "image", *owners, f"runner={image}")
    for owner in owners:
        seconds = 2 * READY_WITHIN
        running.kubectl("rollout", "status", owner, f"--timeout={seconds:g}s", timeout=seconds + 10)


def test_a_member_is_lost(running: Cluster) -> None:
    """Each of etcd's members in turn: nobody else ends, and no request fails."""
    before = lives(running, *WORKERS, "frontend")
    with under_load(running, "each etcd member deleted in turn") as asked:
        for member in running.of("etcd"):
            member.delete()
            running.until_replaced(member)
    assert not asked.failed, asked.failed
    assert lives(running, *WORKERS, "frontend") == before


def test_a_new_image(running: Cluster, images: dict[str, str]) -> None:
    """Frontends and the workers of each role are replaced one by one; etcd and NATS stay as they are."""
    docker("tag", images["glm47-runner"], NEW)
    before, old = lives(running, *SERVERS), [p for c in ("frontend", *WORKERS) for p in running.of(c)]
    with under_load(running, "new image: 2 frontends, 2 prefill and 2 decode workers roll") as asked:
        set_image(running, NEW)
    assert lives(running, *SERVERS) == before
    assert [pod.until_ended().code for pod in old] == [0] * 6
    assert not {pod.uid for pod in old} & {pod.uid for pod in running.pods}
    # Not 0: a frontend may send a request in the moment of a withdrawal.
    assert len(asked.failed) <= 2, asked.failed


def test_the_only_prefill_worker_is_lost(running: Cluster) -> None:
    """Without it nothing is answered; afterwards it is, and nothing was restarted."""
    running.kubectl("scale", "statefulset/glm47-prefill", "--replicas=1")
    running.until_ready()
    before = lives(running, "decode", "frontend")
    with load(running.url()) as asked:
        running.until(lambda: asked.answered_since(0) > 20, "the load is on")
        deleted = time.monotonic()
        (old,) = running.of("prefill")
        old.delete()
        running.until_replaced(old)
        ready = time.monotonic()
        running.until(lambda: asked.answered_since(ready) > 20, "requests are answered again")
    print(f"prefill worker: ready again after {ready - deleted:.1f} s;", asked.summary())
    assert asked.outage() < ready - deleted + 30
    assert lives(running, "decode", "frontend") == before
    running.kubectl("scale", "statefulset/glm47-prefill", "--replicas=2")
    running.until_ready()


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


def etcd_killed(running: Cluster) -> None:
    """Each member's runner starts it anew in place."""

    def process(pod: Pod) -> str:
        return pod.exec("pgrep", "-x", "etcd", check=False).stdout.strip()

    for pod in running.of("etcd"):
        old = process(pod)
        pod.exec("kill", "-KILL", old)
        running.until(lambda: process(pod) not in ("", old), "another one runs")  # noqa: B023
        running.until(running._complete, "every pod is ready")


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
    "each etcd killed (-9)": etcd_killed,
    "each etcd container killed (-9)": one_by_one("etcd", kill_container),
    "NATS away for 60 s": away("nats", 60),
    "all of etcd away for 60 s": away("etcd", 60),
}


@pytest.mark.k8s_more
@pytest.mark.parametrize("tokens", [TOKENS, 400])
@pytest.mark.parametrize("case", CASES)
def test_measured(running: Cluster, case: str, tokens: int) -> None:
    # Kubernetes waits longer before each new start of a container: the last case's are not this one's.
    for pod in running.pods:
        if pod.restarts:
            pod.delete()
            running.until_replaced(pod)
    before = [(pod, len(pod.ended)) for pod in running.pods]
    with under_load(running, f"{case}, {tokens} tokens", tokens):
        CASES[case](running)
    for pod, ends in before:
        if codes := [end.code for end in pod.ended[ends:]]:
            what = f"restarts {pod.restarts}: {pod.message[-100:]}" if pod.now() else "replaced"
            print(f"| {pod.name} ended with {codes} | {what} |")
