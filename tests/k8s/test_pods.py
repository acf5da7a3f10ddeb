"""The pods, run for real with Dynamo's mocker by the stand-ins for kubelet, kube-proxy and controllers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.container.harness import answer
from tests.k8s import manifests
from tests.k8s.cluster import Cluster, cluster
from tests.k8s.kubelet import Pod
from tests.k8s.load import load

pytestmark = pytest.mark.container

GRACE_OF_THE_MOCKER = 15.0
"""Seconds within which a pod of the mocker has left, of the 315 that it may take."""


@pytest.fixture(scope="module")
def running(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """1p2d with the mocker, ready."""
    with cluster(image, "mocker/1p2d", tmp_path_factory.mktemp("1p2d")) as made:
        made.until_ready()
        yield made


def one(cluster: Cluster, component: str, **changes: Any) -> Pod:
    """A single pod of the manifests, with changes to its container or (`pod=`) its spec."""
    spec = next(
        p for p in manifests.pods(cluster.objects) if p.labels["app.kubernetes.io/component"] == component
    )
    spec.spec.update(changes.pop("pod", {}))
    spec.spec["volumes"] += changes.pop("volumes", [])
    spec.container["volumeMounts"] += changes.pop("volumeMounts", [])
    spec.container["env"] += [{"name": k, "value": v} for k, v in changes.pop("env", {}).items()]
    for name, part in changes.items():
        spec.container[name] = {**spec.container[name], **part}
    return cluster.start(spec)


# -- 1p1d


def test_1p1d(image: str, tmp_path: Path) -> None:
    """It answers; its pods are as locked down as they say; each leaves with 0, well within its grace."""
    with cluster(image, "mocker/1p1d", tmp_path) as made:
        made.until_ready()
        with made.service() as service:
            assert answer(service.url).strip()
        for pod in made.pods:
            assert_locked_down(pod)
            assert pod.restarts == 0
            assert all(pod.probes["liveness"]), "liveness failed while loading"
        for components in (("frontend",), ("decode", "prefill"), ("nats", "etcd")):
            leaving = [pod for component in components for pod in made.of(component)]
            for pod in leaving:
                pod.delete(wait=False)
            for pod in leaving:
                ended = pod.delete()
                assert ended is not None
                assert (ended.code, ended.why) == (0, "deleted"), pod.logs()
                print(f"{pod.name}: ready after {pod.ready_after:.1f} s, gone after {ended.seconds:.1f} s")
                drain = 15 if components == ("frontend",) else 0
                assert drain <= ended.seconds < drain + GRACE_OF_THE_MOCKER


def assert_locked_down(pod: Pod) -> None:
    status = dict(line.split(":\t", 1) for line in pod.exec("cat", "/proc/1/status").stdout.splitlines())
    assert status["Uid"].split() == ["1000"] * 4 and status["Gid"].split() == ["1000"] * 4
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
    for kind in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"):
        assert int(status[kind], 16) == 0
    assert pod.exec("touch", "/opt/x", check=False).returncode != 0
    assert pod.exec("ls", "/var/run/secrets/kubernetes.io", check=False).returncode != 0
    assert "tcp://" not in pod.exec("env").stdout
    if pod.spec.labels["app.kubernetes.io/component"] in ("prefill", "decode"):
        assert pod.exec("df", "--output=size", "-m", "/dev/shm").stdout.split()[1] == "64"


# -- updates and losses under load


def test_rolling_update_of_the_frontends(running: Cluster) -> None:
    """Not one request fails while every frontend is replaced."""
    with running.service() as service, load(service.url) as asked:
        before = running.of("frontend")
        running.rolling_update("frontend")
        for pod in before:
            ended = pod.delete()
            assert ended is not None and ended.code == 0, pod.logs()
        done = time.monotonic()
        running.until(lambda: asked.answered_since(done) > 20, "the new frontends answer")
    print("rolling update:", asked.summary())
    assert not asked.failed, asked.failed
    assert len(asked.asked) > 100


def test_deleting_one_of_two_decode_workers(running: Cluster) -> None:
    """Requests go on: the worker leaves the list and answers what it has in hand before it stops."""
    with running.service() as service, load(service.url) as asked:
        running.until(lambda: asked.answered_since(0) > 20, "the load is on")
        deleted = time.monotonic()
        new = running.recreate(running.of("decode")[0])
        running.until(lambda: new.ready, "the new worker is ready")
        running.until(lambda: asked.answered_since(time.monotonic() - 2) > 20, "requests are answered")
    print(f"decode worker: ready again after {time.monotonic() - deleted:.1f} s;", asked.summary())
    # Not 0: a frontend may send a request in the moment of the withdrawal.
    assert len(asked.failed) <= 2
    assert asked.outage() < 10
    assert all(p.ready and p.restarts == 0 for p in running.of("frontend"))


def test_deleting_the_prefill_worker(running: Cluster) -> None:
    """Without its only prefill worker it answers nothing; afterwards it does, and nothing was restarted."""
    with running.service() as service, load(service.url) as asked:
        running.until(lambda: asked.answered_since(0) > 20, "the load is on")
        deleted = time.monotonic()
        new = running.recreate(running.of("prefill")[0])
        running.until(lambda: new.ready, "the new worker is ready")
        ready = time.monotonic()
        running.until(lambda: asked.answered_since(ready) > 20, "requests are answered again")
    print(f"prefill worker: ready again after {ready - deleted:.1f} s;", asked.summary())
    assert asked.outage() < ready - deleted + 30
    assert all(p.restarts == 0 for p in running.pods)


# -- probes, restarts, reasons


def test_a_start_that_waits_is_not_killed(running: Cluster) -> None:
    """A worker whose servers are not there: live, not started, and at last its own exit code and reason."""
    pod = one(running, "decode", env={"ETCD_ENDPOINTS": "http://nowhere:2379", "GLM47_SERVER_TIMEOUT": "8"})
    running.until(lambda: pod.ended, "it gives up by itself")
    assert pod.ended[0].code == 69 and pod.ended[0].why == ""
    assert "ETCD_ENDPOINTS" in pod.ended[0].message and "\n" not in pod.ended[0].message
    assert pod.probes["startup"] and not any(pod.probes["startup"])
    assert not pod.probes["liveness"]
    running.forget(pod)


def test_bad_settings_are_named(running: Cluster) -> None:
    """`kubectl describe pod` says what is wrong."""
    pod = one(running, "decode", env={"GLM47_TP": "four"})
    running.until(lambda: pod.ended, "it ends")
    running.forget(pod)
    assert pod.ended[0].code == 78
    assert "GLM47_TP" in pod.ended[0].message and "four" in pod.ended[0].message


def test_liveness_restarts_a_runner_that_hangs(running: Cluster) -> None:
    """A stopped runner answers no probe: it gets TERM, KILL at the end of the grace, and starts anew.

    It also has a secret in a file that only the pod's group may read: without it, it would end with 78.
    """
    running.node.secrets["glm47-api"] = {"api-key": "hunter2"}
    quick = {"periodSeconds": 1, "timeoutSeconds": 1}
    pod = one(
        running,
        "nats",
        pod={"terminationGracePeriodSeconds": 3},
        volumes=[{"name": "key", "secret": {"secretName": "glm47-api", "defaultMode": 0o440}}],
        volumeMounts=[{"name": "key", "mountPath": "/etc/glm47", "readOnly": True}],
        env={"GLM47_API_KEY_FILE": "/etc/glm47/api-key"},
        startupProbe=quick,
        livenessProbe=quick,
        readinessProbe=quick,
    )
    running.until(lambda: pod.ready, "it is ready")
    os.kill(pod.pid(), signal.SIGSTOP)
    running.until(lambda: pod.ended, "liveness ends it")
    first = pod.ended[0]
    assert (first.code, first.why) == (137, "liveness")
    assert 3 <= first.seconds < 15
    running.until(lambda: pod.ready, "it is ready again, on the same volumes")
    assert pod.restarts == 1
    assert pod.exec("stat", "-c", "%u:%g %a", "/etc/glm47/api-key").stdout.strip() == "0:1000 440"
    running.forget(pod)


def test_worker_that_dies_ends_its_pod(running: Cluster) -> None:
    """The engine's end is the container's, with its code and a reason; it is started anew in place."""
    pod = running.of("decode")[-1]
    pod.exec("pkill", "-KILL", "-f", "dynamo.mocker")
    running.until(lambda: pod.ended, "the container ends")
    assert pod.ended[0].code == 137 and "decode" in pod.ended[0].message
    running.until(lambda: pod.ready and pod.restarts == 1, "it is ready again")


# -- several nodes


def test_multi_node_group(image: str, tmp_path: Path) -> None:
    """Leader and follower find their place; a lost follower takes the group with it, and it comes back."""
    with cluster(image, "mocker/multi-node", tmp_path) as made:
        made.until_ready()
        with made.service() as service:
            assert answer(service.url).strip()
            leader, follower = (p for p in made.pods if p.spec.owner == "glm47-prefill")
            assert "rank 1 of 2" in follower.exec("glm47-runner", "plan").stdout
            follower.exec("pkill", "-KILL", "sleep")
            made.until(lambda: follower.ended, "the follower ends")
            made.recreate_group("glm47-prefill")
            assert leader.ended[-1].code == 0
            made.until_ready()
            assert answer(service.url).strip()
