"""A stand-in for a kubelet: runs one pod's spec on the Docker engine.

It does: a network namespace that outlives container restarts (a pause container), variables with ConfigMaps
and fields, Secrets as files, volumes (emptyDir, claims, memory), security context, memory limits, probes
(startup gates the others, liveness restarts, readiness is reported), restarts with backoff, TERM and then
KILL at the grace period, the termination message, and service links unless the pod declines them.

It leaves out: several containers, init containers, lifecycle hooks, exec, TCP and gRPC probes, CPU requests,
seccomp profiles other than the engine's default, GPUs and resource claims. A memory volume does not outlive
its container here.
"""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.container.harness import LABEL, client, docker
from tests.k8s.manifests import Object, PodSpec

FIRST_BACKOFF = 1.0
"""Seconds before the first restart, doubled each time; a real kubelet takes 10."""
MESSAGE_LIMIT = 4096
UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


@dataclass(frozen=True)
class Ended:
    """How a container ended, as `kubectl describe pod` says it."""

    code: int
    message: str
    why: str
    """What the kubelet did to it: nothing, `liveness`, `startup` or `deleted`."""
    seconds: float
    """From the signal, or from its start when there was none."""


@dataclass
class Node:
    """What the pods of one test share."""

    image: str
    network: str
    root: Path
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    services: tuple[Object, ...] = ()


def size(quantity: str) -> int:
    """Bytes of a quantity such as 64Mi."""
    return int(quantity[:-2]) * UNITS[quantity[-2:]] if quantity[-2:] in UNITS else int(quantity)


def service_links(services: tuple[Object, ...]) -> dict[str, str]:
    """Docker's old link variables, as a kubelet injects them for every Service that has an address."""
    made = {}
    for service in services:
        if service["spec"].get("clusterIP") == "None":
            continue
        name = service["metadata"]["name"].upper().replace("-", "_")
        port = service["spec"]["ports"][0]["port"]
        made |= {
            f"{name}_SERVICE_HOST": "10.96.0.17",
            f"{name}_SERVICE_PORT": str(port),
            f"{name}_PORT": f"tcp://10.96.0.17:{port}",
        }
    return made


class Pod:
    """One pod from its start to its deletion. Safe to look at from any thread."""

    def __init__(
        self, node: Node, pod: PodSpec, environ: Mapping[str, str], names: tuple[str, ...] = ()
    ) -> None:
        self.spec = pod
        self.name = pod.name
        self.node = node
        self.ended: list[Ended] = []
        self.started = False
        self.ready = False
        self.ready_after: float | None = None
        """Seconds from the pod's start to its first readiness."""
        self.deleting = False
        self.probes: dict[str, list[bool]] = {"startup": [], "liveness": [], "readiness": []}
        self._id = f"glm47-k8s-{pod.name}-{uuid.uuid4().hex[:6]}"
        self._began = time.monotonic()
        self._why = ""
        self._signalled: float | None = None
        self._gone = threading.Event()
        self._directory = node.root / "pods" / self._id
        self._environ = dict(environ)
        if pod.spec.get("enableServiceLinks", True):
            self._environ = {**service_links(node.services), **self._environ}
        aliases = [word for name in (*names, *pod.aliases, pod.name) for word in ("--network-alias", name)]
        docker(
            "run", "-d", "--name", f"{self._id}-pause", "--label", LABEL, "--network", node.network, *aliases,
            "--user", "65535", "--cap-drop", "ALL", "--no-healthcheck", "--entrypoint", "sleep", node.image,
            "infinity",
        )  # fmt: skip
        found = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        self.address = docker("inspect", "-f", found, f"{self._id}-pause").stdout.strip()
        self._arguments = self._docker_arguments()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    # -- what a test asks

    @property
    def restarts(self) -> int:
        return len(self.ended) - (1 if self._gone.is_set() else 0)

    @property
    def endpoint(self) -> bool:
        """Whether a Service sends to it."""
        return self.ready and not self.deleting

    @property
    def container(self) -> str:
        """The name of the running container, or of the last one."""
        return f"{self._id}-{len(self.ended) if not self._gone.is_set() else len(self.ended) - 1}"

    def logs(self) -> str:
        done = docker("logs", self.container, check=False)
        return f"--- {self.name}\n{done.stdout}{done.stderr}"

    def exec(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return docker("exec", self.container, *words, check=check)

    def pid(self) -> int:
        """Of the container's first process, as the machine sees it."""
        return int(docker("inspect", "-f", "{{.State.Pid}}", self.container).stdout)

    def delete(self, wait: bool = True) -> Ended | None:
        """What `kubectl delete pod` does. Returns how the container ended when it was waited for."""
        if not self.deleting:
            self.deleting = True
            threading.Thread(target=self._kill, args=("deleted",), daemon=True).start()
        if not wait:
            return None
        grace = self.spec.spec["terminationGracePeriodSeconds"]
        assert self._gone.wait(grace + 60), f"{self.name} is not gone"
        return self.ended[-1]

    def remove(self) -> None:
        """Clean up whatever is left, without grace."""
        self.deleting = True
        docker("kill", self.container, check=False)
        self._gone.wait(30)
        made = [f"{self._id}-{number}" for number in range(len(self.ended))]
        docker("rm", "-f", "-v", *made, f"{self._id}-pause", check=False)
        shutil.rmtree(self._directory, ignore_errors=True)

    # -- the kubelet's side

    def _run(self) -> None:
        backoff = FIRST_BACKOFF
        while True:
            self._one_container()
            if self.deleting:
                break
            time.sleep(backoff)
            backoff *= 2
            if self.deleting:
                break
        self._gone.set()
        docker("rm", "-f", "-v", f"{self._id}-pause", check=False)

    def _one_container(self) -> None:
        name = self.container
        message = self._directory / f"message-{len(self.ended)}"
        message.touch()
        message.chmod(0o666)
        spec = self.spec.container
        mount = ("-v", f"{message}:{spec.get('terminationMessagePath', '/dev/termination-log')}")
        entry = spec.get("command", [])
        words = [
            *(("--entrypoint", entry[0]) if entry else ()),
            self.node.image,
            *entry[1:],
            *spec.get("args", []),
        ]
        self._why, self._signalled = "", None
        began = time.monotonic()
        docker("run", "-d", "--name", name, *self._arguments, *mount, *words)
        stop = threading.Event()
        prober = threading.Thread(target=self._probe_all, args=(stop,), daemon=True)
        prober.start()
        code = int(docker("wait", name, timeout=86400, check=False).stdout.strip() or -1)
        stop.set()
        self.ready = self.started = False
        text = message.read_text()[:MESSAGE_LIMIT].strip()
        if not text and code and spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            done = docker("logs", "--tail", "80", name, check=False)
            text = (done.stdout + done.stderr)[-2048:]
        seconds = time.monotonic() - (self._signalled or began)
        self.ended.append(Ended(code, text, self._why, seconds))

    def _kill(self, why: str) -> None:
        self._why, self._signalled = why, time.monotonic()
        grace = self.spec.spec["terminationGracePeriodSeconds"]
        docker("stop", "-t", str(grace), self.container, check=False, timeout=grace + 30)

    def _probe_all(self, stop: threading.Event) -> None:
        if not self._probe("startup", stop):
            return
        self.started = True
        kinds = ("liveness", "readiness")
        threads = [threading.Thread(target=self._probe, args=(k, stop), daemon=True) for k in kinds]
        for thread in threads:
            thread.start()

    def _probe(self, kind: str, stop: threading.Event) -> bool:
        """Probe until the container ends; startup only until it succeeds, which is True."""
        probe = self.spec.container[f"{kind}Probe"]
        failures = 0
        stop.wait(probe.get("initialDelaySeconds", 0))
        while not stop.is_set():
            ok = self._ask(probe)
            if stop.is_set():
                break
            self.probes[kind].append(ok)
            failures = 0 if ok else failures + 1
            if ok and kind == "startup":
                return True
            if kind == "readiness" and ok:
                self.ready = True
                self.ready_after = self.ready_after or time.monotonic() - self._began
            elif kind == "readiness" and failures >= probe["failureThreshold"]:
                self.ready = False
            elif failures >= probe["failureThreshold"] and not self.deleting:
                self._kill(kind)
                break
            stop.wait(probe["periodSeconds"])
        return False

    def _ask(self, probe: Object) -> bool:
        wanted = probe["httpGet"]["port"]
        ports = {p["name"]: p["containerPort"] for p in self.spec.container["ports"]}
        connection = http.client.HTTPConnection(
            self.address, ports.get(wanted, wanted), timeout=probe.get("timeoutSeconds", 1)
        )
        try:
            connection.request("GET", probe["httpGet"]["path"], headers={"User-Agent": "kube-probe/1.37"})
            return 200 <= connection.getresponse().status < 400
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    # -- the spec as Docker's arguments

    def _docker_arguments(self) -> list[str]:
        pod, own = self.spec.spec["securityContext"], self.spec.container["securityContext"]
        words = ["--label", LABEL, "--network", f"container:{self._id}-pause", "--no-healthcheck"]
        words += ["--user", f"{pod['runAsUser']}:{pod['runAsGroup']}", "--group-add", str(pod["fsGroup"])]
        words += ["--read-only"] if own["readOnlyRootFilesystem"] else []
        words += [] if own["allowPrivilegeEscalation"] else ["--security-opt", "no-new-privileges"]
        for verb in ("drop", "add"):
            words += [w for c in own["capabilities"].get(verb, []) for w in (f"--cap-{verb}", c)]
        if limit := self.spec.container.get("resources", {}).get("limits", {}).get("memory"):
            words += ["--memory", str(size(limit))]
        words += [w for k, v in self._environ.items() for w in ("-e", f"{k}={v}")]
        volumes = {v["name"]: v for v in self.spec.spec["volumes"]}
        for mount in self.spec.container["volumeMounts"]:
            volume = volumes.get(mount["name"], {"claim": f"{mount['name']}-{self.name}"})
            mode = ":ro" if mount.get("readOnly") else ""
            if volume.get("emptyDir", {}).get("medium") == "Memory":
                limit = size(volume["emptyDir"]["sizeLimit"])
                target = f"destination={mount['mountPath']}"
                words += ["--mount", f"type=tmpfs,{target},tmpfs-size={limit},tmpfs-mode=1777"]
            else:
                words += ["-v", f"{self._volume(volume)}:{mount['mountPath']}{mode}"]
        return words

    def _volume(self, volume: Object) -> Path:
        """The directory of a volume, its group the pod's fsGroup."""
        group = self.spec.spec["securityContext"]["fsGroup"]
        if "claim" in volume or "persistentVolumeClaim" in volume:
            claim = volume.get("claim") or volume["persistentVolumeClaim"]["claimName"]
            path = self.node.root / "claims" / claim
        else:
            path = self._directory / "volumes" / volume["name"]
        path.mkdir(parents=True, exist_ok=True)
        if "secret" in volume:
            for name, value in self.node.secrets[volume["secret"]["secretName"]].items():
                (path / name).write_text(value)
                os.chown(path / name, 0, group)
                (path / name).chmod(volume["secret"].get("defaultMode", 0o644))
        os.chown(path, 0, group)
        path.chmod(0o2777)
        return path


def available() -> bool:
    """Whether this machine can play a node: a Docker engine, and root for the volumes' owners."""
    return client() is not None and os.getuid() == 0
