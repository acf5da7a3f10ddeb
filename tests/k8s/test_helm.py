"""The chart as a release on a real Kubernetes: installed, tested, upgraded, refused, rolled back, gone."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.k8s import chart
from tests.k8s.chart import merged
from tests.k8s.kubernetes import Kubernetes
from tests.k8s.manifests import Object, named, of_kind, overlay
from tests.k8s.releases import Release

pytestmark = pytest.mark.container

SETS = "apis/apps/v1/statefulsets"
CLAIMS = "api/v1/persistentvolumeclaims"
GUARD = "glm47-layout-decode"
DECODE = "app.kubernetes.io/component=decode,app.kubernetes.io/instance=glm47"


def values(images: dict[str, str]) -> Object:
    """1p1d with the mocker, one frontend, a model that is fetched; on two cores."""
    repository, _, tag = images["glm47-runner"].rpartition(":")
    small = {"resources": {"requests": {"cpu": "10m"}}}
    return merged(
        chart.values("1p1d"),
        {
            "mocker": True,
            "image": {"repository": repository, "tag": tag},
            "frontend": {"replicas": 1, **small},
            **dict.fromkeys(("prefill", "decode", "servers"), small),
            "model": {
                "create": True,
                "download": {
                    "enabled": True,
                    "image": images["glm47-runner"],
                    "command": ["cp", "-r", "/opt/glm47-runner/demo-model/.", "/model"],
                },
            },
        },
    )


@pytest.fixture
def release(kubernetes: Kubernetes, tmp_path: Path) -> Iterator[Release]:
    with Release(kubernetes, tmp_path, f"helm-{uuid.uuid4().hex[:6]}") as made:
        yield made


def refusal(act: Callable[..., None], *given: Any) -> str:
    """What Helm says against it."""
    with pytest.raises(chart.helm().HelmError) as refused:
        act(*given)
    return str(refused.value)


def leaders(group: Object) -> Object:
    """The StatefulSet of its leaders that LeaderWorkerSet's controller makes of a group."""
    template = group["spec"]["leaderWorkerTemplate"]["workerTemplate"]
    name = group["metadata"]["name"]
    owner = {"apiVersion": group["apiVersion"], "kind": group["kind"], "name": name, "uid": str(uuid.uuid4())}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name, "ownerReferences": [owner]},
        "spec": {
            "replicas": 0,
            "serviceName": name,
            "selector": {"matchLabels": template["metadata"]["labels"]},
            "template": template,
        },
    }


@contextmanager
def timed(what: str) -> Iterator[None]:
    since = time.monotonic()
    yield
    print(f"helm {what}: {time.monotonic() - since:.1f} s")


@pytest.mark.k8s_more
def test_a_release_from_install_to_uninstall(release: Release, images: dict[str, str]) -> None:
    given = values(images)
    with timed("install, every pod ready"):
        release.install(given)
    (job,) = release.items("apis/batch/v1/jobs")
    assert job["status"]["succeeded"] == 1, "the model was fetched and looked at"
    first = min(str(p["metadata"]["creationTimestamp"]) for p in release.items(SETS))
    assert job["status"]["completionTime"] <= first, "before anything else"
    with timed("test"):
        logs = release.test()
    assert "chat" in logs, logs
    before = release.pods()

    with timed("upgrade with a changed setting"):
        release.upgrade(merged(given, {"settings": {"GLM47_LOG_FORMAT": "json"}}))
    after = release.pods()
    for name, uid in before.items():
        if "etcd" in name or "nats" in name:
            assert after[name] == uid, "servers stay"
        elif name.startswith(("glm47-frontend", "glm47-prefill", "glm47-decode")):
            assert after.get(name) != uid, "who reads the setting is replaced"
    settings = [n for n in release.names("api/v1/configmaps") if "settings" in n]
    assert len(settings) == 1, "the old ConfigMap is gone"

    with timed("rollback"):
        release.rollback(1)
    assert [n for n in release.names("api/v1/configmaps") if "settings" in n] != settings
    assert release.history() == [(1, "superseded"), (2, "superseded"), (3, "deployed")]

    claims = release.names(CLAIMS)
    with timed("uninstall"):
        release.uninstall()
    assert not release.items(SETS) and not release.items("apis/apps/v1/deployments")
    assert not [n for n in release.names("api/v1/secrets") if n.startswith("glm47")]
    assert not [n for n in release.names("api/v1/configmaps") if "settings" in n]
    assert release.names(CLAIMS) == claims and "glm47-model" in claims
    assert {"cache-glm47-decode-0", "data-glm47-etcd-0"} <= claims


def test_another_kind_of_worker_is_refused(release: Release, images: dict[str, str]) -> None:
    """One pod to groups and back, before anything is changed; a rollback by the API server."""
    # No pod is asked for: the scheduler finds no such node.
    given = merged(values(images), {"model": {"create": False, "download": {"enabled": False}}})
    given = merged(given, {"pods": {"nodeSelector": {"nowhere": "yes"}}})
    release.install(given, wait=None)
    history = release.history()
    wide = merged(given, {"decode": {"nodes": 2}})

    refused = refusal(release.upgrade, wide)
    assert "cannot change the workers of glm47-decode in place: " in refused
    command = f"kubectl delete statefulset,secret -l {DECODE}"
    assert command in refused
    assert release.history() == history

    # What LeaderWorkerSet's controller makes of a group: no such kind is here.
    groups = chart.render(wide)
    release.kubectl(*command.split()[1:])
    made = [leaders(named(groups, "LeaderWorkerSet", "glm47-decode")), named(groups, "Secret", GUARD)]
    release.kubernetes.apply(made, release.namespace)
    refused = refusal(release.upgrade, given)
    back = f"kubectl delete leaderworkerset,secret -l {DECODE}"
    assert back in refused
    # It renders nothing, so it looks up nothing.
    refused = refusal(release.rollback, 1)
    assert back in refused and "field is immutable" in refused

    release.kubectl("delete", "statefulset/glm47-decode", f"secret/{GUARD}")
    release.upgrade(given, wait=None)
    assert "glm47-decode" in release.names(SETS)


def test_kubectl_is_refused_with_what_makes_room(release: Release) -> None:
    """`kubectl apply` of another layout ends with 1 and says it; nothing happens with --dry-run=server."""
    for old, new in (("1p1d", "multi-node"), ("wide-decode", "1p2d"), ("single-node", "1p1d")):
        before, after = (of_kind(overlay(name), "Secret") for name in (old, new))
        release.kubernetes.apply(before, release.namespace)
        told = [
            o["type"]
            for o in after
            for other in before
            if o["metadata"]["name"] == other["metadata"]["name"] and o["type"] != other["type"]
        ]
        listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": after})
        for more in ([], ["--dry-run=server"]):
            done = release.kubernetes.kubectl_done(
                "apply", f"--namespace={release.namespace}", "--filename=-", *more, given=listed
            )
            assert done.returncode == 1 and told
            for words in told:
                assert f'type: Invalid value: "{words}": field is immutable' in done.stderr
        release.kubectl("delete", "secret", "-l", "app.kubernetes.io/instance=glm47")
