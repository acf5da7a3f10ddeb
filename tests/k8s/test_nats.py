"""nats-auth and nats-tls: from the Secrets' files to what NATS asks for and every pod shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from entrypoint.errors import ConfigError
from entrypoint.load import load_plan
from entrypoint.plan.text import text
from entrypoint.plan.types import Plan, to_jsonable
from tests.k8s.manifests import Object, PodSpec, built, environ, pods
from tests.k8s.test_overlays import SEVERAL_PODS

COMPONENTS = ("etcd-tls", "nats-auth", "nats-tls")
FILES = {"username": "glm47", "password": "hunter2", "ca.crt": "CERTIFICATE", "tls.crt": "CERTIFICATE"}
FILES |= {"tls.key": "PRIVATE KEY"}
DYNAMO = "NATS_AUTH_PASSWORD"


def mounted(pod: PodSpec, objects: list[Object], secrets: Path, **more: str) -> Plan:
    """The plan of a pod whose Secrets' files are those of `secrets`; no Dynamo is known unless named."""
    variables = {**environ(pod, objects), "GLM47_PYTHON": "/nonexistent", **more}
    mounts = {m["name"]: m["mountPath"] for m in pod.container["volumeMounts"]}
    for name, value in variables.items():
        for where in (mounts[m] for m in COMPONENTS if m in mounts):
            if value == where or value.startswith(f"{where}/"):
                variables[name] = f"{secrets}{value.removeprefix(where)}"
    return load_plan({k: v for k, v in variables.items() if v}, secrets).plan


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    directory = tmp_path / "secrets"
    directory.mkdir()
    for name, value in FILES.items():
        pem = f"-----BEGIN {value}-----\n" if name.endswith(("crt", "key")) else value
        (directory / name).write_text(pem)
    return directory


@pytest.mark.parametrize("layout", SEVERAL_PODS)
def test_all_pods_of_a_layout_agree(layout: str, tmp_path: Path, secrets: Path) -> None:
    """In either order, and with etcd's TLS besides."""
    for order in (COMPONENTS, COMPONENTS[::-1]):
        listed = [f"../components/{component}" for component in order]
        objects = built(tmp_path, {"resources": [f"../{layout}"], "components": listed})
        asked, shown = set(), set()
        for pod in pods(objects):
            plan = mounted(pod, objects, secrets)
            assert "hunter2" not in text(plan) + repr(to_jsonable(plan))
            asked |= {(file.content, "--tlsverify" in plan.processes[0].argv) for file in plan.secret_files}
            for process in plan.processes if {"etcd", "nats"}.isdisjoint(plan.roles) else ():
                names = ("NATS_AUTH_USERNAME", DYNAMO, "NATS_TLS_CLIENT_KEY_PATH")
                shown.add(tuple(process.env[name] for name in names))
                assert plan.gates[-1].setting == "NATS_SERVER" and DYNAMO in process.secret_env
        assert asked == {('authorization { user: "glm47", password: "hunter2" }\n', True)}
        assert shown == {("glm47", "hunter2", f"{secrets}/tls.key")}


def test_workers_of_an_older_dynamo_are_refused(tmp_path: Path, secrets: Path) -> None:
    """The one that is pinned; its server is not what speaks no TLS."""
    python = {"GLM47_PYTHON": ""}
    objects = built(tmp_path, {"resources": ["../1p1d"], "components": ["../components/nats-tls"]})
    for pod in pods(objects):
        if environ(pod, objects)["ROLE"] in ("etcd", "nats"):
            mounted(pod, objects, secrets, **python)
            continue
        with pytest.raises(ConfigError, match=r"cannot use GLM47_NATS_TLS_DIR: .* speak no TLS"):
            mounted(pod, objects, secrets, **python)
