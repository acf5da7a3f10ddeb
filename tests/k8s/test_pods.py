"""The pods, run for real with Dynamo's mocker on a real Kubernetes."""

from __future__ import annotations

import copy
import os
import signal
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from entrypoint.plan.roles.worker import IN_FLIGHT
from tests.container.harness import answer
from tests.engine.streams import Stream
from tests.k8s import manifests
from tests.k8s.cluster import COMPONENT, Cluster, Pod, cluster
from tests.k8s.kubernetes import Kubernetes
from tests.k8s.load import load

pytestmark = pytest.mark.container

GRACE_OF_THE_MOCKER = 15.0
"""Seconds within which a pod of the mocker has left, of the 315 that it may take."""


def one(cluster: Cluster, component: str, **changes: Any) -> Pod:
    """A single pod of the manifests, with changes to its container or (`pod=`) its spec."""
    spec = next(p for p in manifests.pods(cluster.objects) if p.labels[COMPONENT] == component)
    spec.spec.update(changes.pop("pod", {}))
    spec.spec["volumes"] += changes.pop("volumes", [])
    spec.container["volumeMounts"] += changes.pop("volumeMounts", [])
    spec.container["env"] += [{"name": k, "value": v} for k, v in changes.pop("env", {}).items()]
    for name, part in changes.items():
        spec.container[name] = {**spec.container[name], **part}
    return cluster.start_pod(spec, f"odd-{component}-{uuid.uuid4().hex[:4]}")


# -- 1p1d


def test_1p1d(kubernetes: Kubernetes, images: dict[str, str]) -> None:
    """It answers; its pods are as locked down as they say; each leaves with 0, well within its grace."""
    with cluster(kubernetes, images, "mocker/1p1d") as made:
        made.until_ready()
        assert answer(made.url()).strip()
        pods = made.pods
        for pod in pods:
            assert_locked_down(pod)
            assert pod.restarts == 0
            assert not pod.told("Liveness probe failed"), "liveness failed while loading"
        for components in (("frontend",), ("decode", "prefill"), ("nats", "etcd")):
            leaving = f"--selector=app.kubernetes.io/component in ({','.join(components)})"
            made.kubectl("delete", "deployments,statefulsets", leaving, "--wait=false")
            for pod in [p for p in pods if p.component in components]:
                ended = pod.until_ended()
                assert ended.code == 0, pod
                print(f"{pod.name}: gone {ended.seconds:.1f} s after its SIGTERM")
                drain = 15 if pod.component == "frontend" else 0
                assert drain <= ended.seconds < drain + GRACE_OF_THE_MOCKER


def assert_locked_down(pod: Pod) -> None:
    status = dict(line.split(":\t", 1) for line in pod.exec("cat", "/proc/1/status").stdout.splitlines())
    assert status["Uid"].split() == ["1000"] * 4 and status["Gid"].split() == ["1000"] * 4
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
    for kind in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"):
        assert int(status[kind], 16) == 0
    assert pod.exec("touch", "/opt/x", check=False).returncode != 0
    assert pod.exec("ls", "/var/run/secrets/kubernetes.io", check=False).returncode != 0
    assert "GLM47_ETCD_PORT" not in pod.exec("env").stdout
    if pod.component in ("prefill", "decode"):
        assert pod.exec("df", "--output=size", "-m", "/dev/shm").stdout.split()[1] == "64"


def test_deleting_one_of_two_decode_workers(running: Cluster) -> None:
    """Requests go on: the worker leaves the list and answers what it has in hand before it stops."""
    with load(running.url()) as asked:
        running.until(lambda: asked.answered_since(0) > 20, "the load is on")
        deleted = time.monotonic()
        old = running.of("decode")[0]
        old.delete()
        running.until_replaced(old)
        ready = time.monotonic()
        running.until(lambda: asked.answered_since(ready) > 20, "requests are answered")
    print(f"decode worker: ready again after {ready - deleted:.1f} s;", asked.summary())
    assert old.ended[-1].code == 0
    # Not 0: a frontend may send a request in the moment of the withdrawal.
    assert len(asked.failed) <= 2
    assert asked.outage() < 10
    assert all(p.ready and p.restarts == 0 for p in running.of("frontend"))


# -- probes, restarts, reasons


def test_a_start_that_waits_is_not_killed(running: Cluster) -> None:
    """A worker whose servers are not there: live, not started, and at last its own exit code and reason."""
    pod = one(running, "decode", env={"ETCD_ENDPOINTS": "http://nowhere:2379", "GLM47_SERVER_TIMEOUT": "12"})
    running.until(lambda: pod.message, "it gives up by itself")
    assert pod.ended[0].code == 69 and not pod.told("will be restarted")
    assert "ETCD_ENDPOINTS" in pod.message and "\n" not in pod.message
    assert pod.told("Startup probe failed") and not pod.told("Liveness probe failed")
    pod.delete()


def test_bad_settings_are_named(running: Cluster) -> None:
    """`kubectl describe pod` says what is wrong."""
    pod = one(running, "decode", env={"GLM47_TP": "four"})
    running.until(lambda: pod.message, "it ends")
    assert pod.ended[0].code == 78
    assert "GLM47_TP" in pod.message and "four" in pod.message
    pod.delete()


def test_workers_tell_what_autoscalers_go_by(running: Cluster) -> None:
    """components/hpa and components/keda, on the port that components/monitoring has scraped."""
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8081/metrics').read().decode())"
    for component, dynamo_component in (("decode", "backend"), ("prefill", "prefill")):
        page = running.of(component)[0].exec("python3", "-c", ask).stdout
        (line,) = (
            line
            for line in page.splitlines()
            if line.startswith(IN_FLIGHT) and 'dynamo_endpoint="generate"' in line
        )
        assert f'dynamo_component="{dynamo_component}"' in line


def test_an_end_is_told_where_it_outlives_the_pod(running: Cluster, tmp_path: Path) -> None:
    """By components/events. An account that may not changes nothing but a line of the log."""
    objects = manifests.with_component("events", tmp_path, "mocker/2p2d")
    account = ("ServiceAccount", "Role", "RoleBinding")
    running.apply([each for kind in account for each in manifests.of_kind(objects, kind)])
    wrong = {"name": "GLM47_TP", "value": "four"}
    made = []
    for name in ("allowed", "refused"):
        spec = next(p for p in manifests.pods(objects) if p.labels[COMPONENT] == "decode")
        if name == "refused":
            spec.spec["serviceAccountName"] = "default"
        spec.container["env"].append(wrong)
        made.append(running.start_pod(spec, f"odd-{name}"))
    allowed, refused = made
    running.until(lambda: all(pod.ended for pod in made), "both end")
    assert {pod.ended[0].code for pod in made} == {78}
    assert "BadConfiguration" in running.kubectl("describe", "pod", allowed.name)
    # The kubelet has a log's last lines a moment after it tells the end.
    line = "no Event was made: the API server answers 403"
    running.until(lambda: line in refused.logs(), "the log says why there is none")
    for pod in made:
        pod.delete()
        pod.until_gone()
    told = running.kubectl("get", "events", "--field-selector", "source=glm47-runner")
    print(told)
    assert "BadConfiguration" in told and "ended with 78: cannot use GLM47_TP" in told
    assert refused.name not in told


def test_liveness_restarts_a_runner_that_hangs(running: Cluster) -> None:
    """A stopped runner answers no probe: it gets TERM, KILL at the end of the grace, and starts anew.

    It also has a secret in a file that only the pod's group may read: without it, it would end with 78.
    """
    running.kubectl("create", "secret", "generic", "glm47-api", "--from-literal=api-key=hunter2")
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
    assert first.code == 137 and pod.told("failed liveness probe, will be restarted")
    assert 3 <= first.seconds < 15
    running.until(lambda: pod.ready and pod.restarts == 1, "it is ready again, on the same volumes")
    found = pod.exec("stat", "--dereference", "-c", "%u:%g %a", "/etc/glm47/api-key").stdout
    assert found.strip() == "0:1000 440"
    pod.delete()


def test_worker_that_dies_ends_its_pod(running: Cluster) -> None:
    """The engine's end is the container's, with its code and a reason; it is started anew in place."""
    pod = running.of("decode")[-1]
    pod.exec("pkill", "-KILL", "-f", "dynamo.mocker")
    running.until(lambda: pod.ready and pod.restarts == 1, "it is ready again")
    assert pod.ended[0].code == 137 and "decode" in pod.message


# -- a benchmark


def test_bench_job(running: Cluster, bench_image: str) -> None:
    """k8s/bench measures the deployment in its namespace, and leaves its report in the claim."""
    objects = manifests.build(manifests.K8S / "bench")
    (job,) = manifests.of_kind(objects, "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    container["args"][container["args"].index("full")] = "quick"
    # The layouts with the mocker have no such claim: their model is in the image.
    model = copy.deepcopy(manifests.named(objects, "PersistentVolumeClaim", "glm47-bench-reports"))
    model["metadata"]["name"] = "glm47-model"
    running.apply([*objects, model])
    path = f"/apis/batch/v1/namespaces/{running.namespace}/jobs/glm47-bench"

    def status() -> dict[str, int]:
        return {"succeeded": 0, "failed": 0, **(running.kubernetes.get(path) or {}).get("status", {})}

    running.until(lambda: status()["succeeded"] or status()["failed"], "the job ends")
    told = running.kubectl("logs", "job/glm47-bench")
    print(told)
    assert status()["succeeded"] == 1, told
    assert told.strip().splitlines()[-1].startswith("/reports/")
    running.kubectl("delete", "job/glm47-bench")


# -- several nodes


def test_multi_node_group(kubernetes: Kubernetes, images: dict[str, str]) -> None:
    """Leader and follower find their place; a lost follower takes the group with it, and it comes back.

    The test stands in for LeaderWorkerSet's controller.
    """
    with cluster(kubernetes, images, "mocker/multi-node") as made:
        made.until_ready()
        assert answer(made.url()).strip()
        leader, follower = (p for p in made.of("prefill") if p.name.startswith("glm47-prefill-0"))
        assert "rank 1 of 2" in follower.exec("glm47-runner", "plan").stdout
        follower.exec("pkill", "-KILL", "sleep")
        made.until(lambda: follower.ended, "the follower ends")
        assert follower.ended[-1].code == 137
        made.until(lambda: leader.ended, "the leader ends with it")
        assert leader.ended[-1].code == 76
        lost = "prefill worker rank 1 on glm47-prefill-0-1"
        made.until(lambda: lost in leader.message, "it names the rank")
        # RecreateGroupOnPodRestart.
        for pod in (leader, follower):
            pod.delete()
        for pod in (leader, follower):
            pod.until_gone()
        made.start_group("glm47-prefill")
        made.until_ready()
        assert answer(made.url()).strip()
        drains_as_one(made)


def drains_as_one(made: Cluster) -> None:
    """LeaderWorkerSet deletes all pods of a group at the same time: its followers wait for their leader."""
    leader, follower = made.of("decode")
    request = Stream(made.url(), 800).under_way()
    for pod in (follower, leader):
        pod.delete()
    assert request.is_alive(), "over before both were asked to stop: too short to show anything"
    ends = [pod.until_ended() for pod in (leader, follower)]
    print("decode worker of two pods, deleted with an answer under way:", ends)
    assert request.ended() == ""
    assert [end.code for end in ends] == [0, 0]
    # It was asked a moment before its leader.
    assert ends[1].seconds > ends[0].seconds - 0.5
