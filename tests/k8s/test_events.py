"""What ends is told as an Event: by the account of components/events, and to the real API server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.k8s import schemas
from tests.k8s.manifests import LAYOUTS, Object, known_of_itself, named, of_kind, pods, with_component

ACCOUNT = "glm47-runner"


@pytest.fixture(scope="module", params=LAYOUTS)
def objects(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    return with_component("events", tmp_path_factory.mktemp("events"), request.param)


def test_every_pod_has_the_account_and_knows_itself(objects: list[Object]) -> None:
    for pod in pods(objects):
        assert pod.spec["serviceAccountName"] == ACCOUNT
        assert pod.spec["automountServiceAccountToken"] is True
        assert (
            known_of_itself(pod).items() >= {"POD_NAME": "metadata.name", "POD_UID": "metadata.uid"}.items()
        )


def test_the_account_may_make_events_and_read_its_group(objects: list[Object]) -> None:
    """Nothing that reads a secret, changes an Event, or speaks for a whole cluster."""
    assert not of_kind(objects, "ClusterRole") and not of_kind(objects, "ClusterRoleBinding")
    rules = named(objects, "Role", ACCOUNT)["rules"]
    may = {
        (group, kind, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for kind in rule["resources"]
        for verb in rule["verbs"]
    }
    assert may == {("", "events", "create"), ("leaderworkerset.x-k8s.io", "leaderworkersets", "get")}
    binding = named(objects, "RoleBinding", ACCOUNT)
    assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) == ("Role", ACCOUNT)
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": ACCOUNT}]
    assert named(objects, "ServiceAccount", ACCOUNT)["automountServiceAccountToken"] is False


def test_they_are_valid(objects: list[Object]) -> None:
    for version in ("1.32", "1.37"):
        for each in objects:
            schemas.check(each, version)


def test_without_it_no_pod_has_a_token(tmp_path: Path) -> None:
    for pod in pods(with_component("rdma", tmp_path)):
        assert pod.spec["automountServiceAccountToken"] is False and "serviceAccountName" not in pod.spec
