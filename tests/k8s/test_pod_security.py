"""Every pod passes the restricted level, but for IPC_LOCK where RDMA needs it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.k8s.manifests import K8S, OVERLAYS, Object, build, of_kind, overlay, pods, with_component
from tests.k8s.pod_security import refused

OPT_IN = (
    *("monitoring", "external-servers", "nvlink-domain", "events", "status-token", "hpa", "keda"),
    "kubernetes-discovery",
)


def rdma(spec: Object) -> bool:
    return any("IPC_LOCK" in str(c["securityContext"]["capabilities"].get("add")) for c in spec["containers"])


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_pods_of_a_layout(name: str) -> None:
    for pod in pods(overlay(name)):
        assert refused(pod.spec) == ({"capabilities"} if rdma(pod.spec) else set()), pod.name
        if rdma(pod.spec):
            assert pod.container["securityContext"]["capabilities"]["add"] == ["IPC_LOCK"]
            assert pod.labels["app.kubernetes.io/component"] in ("prefill", "decode")


def test_only_rdma_takes_a_pod_out_of_it(tmp_path: Path) -> None:
    taken = {name for name in OVERLAYS for pod in pods(overlay(name)) if refused(pod.spec)}
    assert taken and not any(name.startswith("mocker/") for name in taken)
    with_it = {pod.owner for pod in pods(with_component("rdma", tmp_path)) if refused(pod.spec)}
    assert with_it == {"glm47-prefill", "glm47-decode"}


@pytest.mark.parametrize("component", OPT_IN)
def test_a_component_takes_none_out_of_it(component: str, tmp_path: Path) -> None:
    made = pods(with_component(component, tmp_path))
    assert made and not {pod.name for pod in made if refused(pod.spec)}


def test_the_benchmark() -> None:
    (job,) = of_kind(build(K8S / "bench"), "Job")
    assert refused(job["spec"]["template"]["spec"]) == set()


def _container(**fields: Any) -> Callable[[Object], None]:
    return lambda spec: spec["containers"][0].update(fields)


def _own(**fields: Any) -> Callable[[Object], None]:
    return lambda spec: spec["containers"][0]["securityContext"].update(fields)


def _pod(**fields: Any) -> Callable[[Object], None]:
    return lambda spec: spec.update(fields)


def _whole(**fields: Any) -> Callable[[Object], None]:
    return lambda spec: spec["securityContext"].update(fields)


def _volume(**kind: Any) -> Callable[[Object], None]:
    return lambda spec: spec["volumes"].append({"name": "more", **kind})


def _without(name: str) -> Callable[[Object], None]:
    return lambda spec: spec["securityContext"].pop(name)


def _second(spec: Object) -> None:
    spec["initContainers"] = [{"name": "first", "image": "any"}]


BROKEN: dict[str, tuple[Callable[[Object], None], set[str]]] = {
    "host network": (_pod(hostNetwork=True), {"hostNetwork"}),
    "host PIDs": (_pod(hostPID=True), {"hostPID"}),
    "host IPC": (_pod(hostIPC=True), {"hostIPC"}),
    "host process": (_own(windowsOptions={"hostProcess": True}), {"hostProcess"}),
    "privileged": (_own(privileged=True), {"privileged"}),
    "escalation": (_own(allowPrivilegeEscalation=True), {"allowPrivilegeEscalation"}),
    "escalation left open": (_own(allowPrivilegeEscalation=None), {"allowPrivilegeEscalation"}),
    "SYS_ADMIN": (_own(capabilities={"drop": ["ALL"], "add": ["SYS_ADMIN"]}), {"capabilities"}),
    "CHOWN": (_own(capabilities={"drop": ["ALL"], "add": ["CHOWN"]}), {"capabilities"}),
    "nothing dropped": (_own(capabilities={}), {"capabilities"}),
    "one dropped": (_own(capabilities={"drop": ["NET_RAW"]}), {"capabilities"}),
    "host path": (_volume(hostPath={"path": "/"}), {"hostPath", "volume types"}),
    "NFS": (_volume(nfs={"server": "a", "path": "/"}), {"volume types"}),
    "host port": (_container(ports=[{"containerPort": 1, "hostPort": 1}]), {"hostPort"}),
    "a probe of a host": (
        _container(livenessProbe={"httpGet": {"host": "127.0.0.1", "port": 1}}), {"host of a probe or hook"},
    ),
    "a hook of a host": (
        _container(lifecycle={"preStop": {"tcpSocket": {"host": "a"}}}), {"host of a probe or hook"},
    ),
    "AppArmor off": (_whole(appArmorProfile={"type": "Unconfined"}), {"AppArmor"}),
    "SELinux": (_own(seLinuxOptions={"type": "spc_t"}), {"SELinux"}),
    "SELinux user": (_own(seLinuxOptions={"user": "system_u"}), {"SELinux"}),
    "proc": (_own(procMount="Unmasked"), {"procMount"}),
    "sysctls": (_whole(sysctls=[{"name": "kernel.msgmax", "value": "1"}]), {"sysctls"}),
    "seccomp off": (_own(seccompProfile={"type": "Unconfined"}), {"seccomp"}),
    "no seccomp": (_without("seccompProfile"), {"seccomp"}),
    "root": (_own(runAsUser=0), {"runAsUser"}),
    "root pod": (_whole(runAsUser=0), {"runAsUser"}),
    "perhaps root": (_without("runAsNonRoot"), {"runAsNonRoot"}),
    "root allowed": (_own(runAsNonRoot=False), {"runAsNonRoot"}),
    "a second container": (_second, {"allowPrivilegeEscalation", "capabilities"}),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_every_rule_can_refuse(case: str) -> None:
    (pod, *_) = pods(overlay("1p1d"))
    spec = copy.deepcopy(pod.spec)
    assert refused(spec) == set()
    change, rules = BROKEN[case]
    change(spec)
    assert refused(spec) == rules
