"""Kubernetes' Pod Security Standards, `baseline` and `restricted`, as they are published (v1.34): what of a
pod's spec an enforcing namespace would refuse.

The documentation is kubernetes.io/docs/concepts/security/pod-security-standards. Rules about annotations of
old releases and about Windows' options beside hostProcess are left out: no manifest here has either.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.k8s.manifests import Object

BASELINE_CAPABILITIES = frozenset(
    (
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE"),
        *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    )
)
RESTRICTED_CAPABILITIES = frozenset(("NET_BIND_SERVICE",))
SELINUX_TYPES = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
PROFILES = ("RuntimeDefault", "Localhost")
SYSCTLS = frozenset(
    (
        *("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start"),
        *("net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports"),
        *("net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl"),
        *("net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"),
    )
)
VOLUMES = frozenset(
    (
        *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image"),
        *("persistentVolumeClaim", "projected", "secret"),
    )
)
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
HOOKS = ("postStart", "preStop")


def containers(spec: Object) -> list[Object]:
    kinds = ("initContainers", "containers", "ephemeralContainers")
    return [each for kind in kinds for each in spec.get(kind) or ()]


def context(of: Object) -> Object:
    found: Object = of.get("securityContext") or {}
    return found


def baseline(spec: Object) -> Iterator[str]:
    """What the baseline level refuses, by the names of its rules."""
    everybody = [context(spec), *map(context, containers(spec))]
    yield from (name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name))
    for own in everybody:
        if (own.get("windowsOptions") or {}).get("hostProcess"):
            yield "hostProcess"
        if (own.get("appArmorProfile") or {}).get("type", "RuntimeDefault") not in PROFILES:
            yield "AppArmor"
        selinux = own.get("seLinuxOptions") or {}
        if selinux.get("type", "") not in SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
            yield "SELinux"
        if (own.get("seccompProfile") or {}).get("type", "RuntimeDefault") not in PROFILES:
            yield "seccomp"
    if any("hostPath" in volume for volume in spec.get("volumes") or ()):
        yield "hostPath"
    if any(each["name"] not in SYSCTLS for each in context(spec).get("sysctls") or ()):
        yield "sysctls"
    for container in containers(spec):
        own = context(container)
        if own.get("privileged"):
            yield "privileged"
        if set((own.get("capabilities") or {}).get("add") or ()) - BASELINE_CAPABILITIES:
            yield "capabilities"
        if any(port.get("hostPort") for port in container.get("ports") or ()):
            yield "hostPort"
        if own.get("procMount", "Default") != "Default":
            yield "procMount"
        if any(_names_a_host(handler) for handler in _handlers(container)):
            yield "host of a probe or hook"


def _handlers(container: Object) -> Iterator[Any]:
    yield from (container.get(name) for name in PROBES)
    yield from ((container.get("lifecycle") or {}).get(name) for name in HOOKS)


def _names_a_host(handler: Any) -> bool:
    return any(((handler or {}).get(kind) or {}).get("host") for kind in ("httpGet", "tcpSocket"))


def restricted(spec: Object) -> Iterator[str]:
    """What the restricted level refuses besides."""
    pod = context(spec)
    for volume in spec.get("volumes") or ():
        if set(volume) - {"name"} - VOLUMES:
            yield "volume types"
    if pod.get("runAsUser") == 0:
        yield "runAsUser"
    for container in containers(spec):
        own = context(container)
        capabilities = own.get("capabilities") or {}
        if own.get("allowPrivilegeEscalation") is not False:
            yield "allowPrivilegeEscalation"
        if not own.get("runAsNonRoot", pod.get("runAsNonRoot")):
            yield "runAsNonRoot"
        if own.get("runAsUser") == 0:
            yield "runAsUser"
        if (own.get("seccompProfile") or pod.get("seccompProfile") or {}).get("type") not in PROFILES:
            yield "seccomp"
        if "ALL" not in (capabilities.get("drop") or ()):
            yield "capabilities"
        if set(capabilities.get("add") or ()) - RESTRICTED_CAPABILITIES:
            yield "capabilities"


def refused(spec: Object) -> set[str]:
    """By which rules a namespace that enforces `restricted` refuses a pod of that spec."""
    return {*baseline(spec), *restricted(spec)}
