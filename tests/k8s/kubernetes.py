"""A real Kubernetes of one node on this machine's Docker engine: API server, controllers, kubelet, proxy.

Its release is the one that Debian 12 has (kubernetes.sh), and old: a PodDisruptionBudget is policy/v1beta1.
Cluster DNS is a stand-in (dnsmasq, fed from the API), because Debian has no CoreDNS. Nothing enforces a
NetworkPolicy, and no controller of a CRD runs. Needs root, and that no other kubelet runs here.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from tests.container.harness import LABEL, client, docker, wait_for
from tests.k8s.started import Started
from tests.k8s.volumes import Volumes

NODE = "node"
TOKEN = "only-this-machine"
PAUSE = "glm47-test-pause:1"
DOMAIN = "cluster.local"
SERVICES = "10.96.0.0/16"
UP_WITHIN = 120.0


class Kubernetes(Started):
    """A context manager; `root` keeps its state and logs."""

    def __init__(self, binaries: Path, etcd: Path, root: Path) -> None:
        super().__init__()
        self.root = root
        self.bridge = ""
        """This machine's address on the network of the pods."""
        self._binaries = binaries
        self._etcd = etcd
        self._programs: dict[str, subprocess.Popen[bytes]] = {}
        self._ended = threading.Event()
        self.config = root / "kubeconfig"
        self._hosts = root / "hosts"

    def kubectl(self, *words: str, given: str = "", check: bool = True, timeout: float = 60) -> str:
        """Standard output of one kubectl command; `given` is its standard input."""
        done = self.kubectl_done(*words, given=given, timeout=timeout)
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def kubectl_done(
        self, *words: str, given: str = "", timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """One kubectl command, whatever comes of it."""
        command = [str(self._binaries / "kubectl"), f"--kubeconfig={self.config}", *words]
        return subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=timeout, check=False
        )

    def get(self, path: str, **query: str) -> dict[str, Any] | None:
        """What the API has at `path`; None when there is nothing. Unlike kubectl it costs no process."""
        answer = self._api.get(path, params=query)
        if answer.status_code == 404:
            return None
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        """The objects of a list that the API has at `path`."""
        found: list[dict[str, Any]] = (self.get(path, **query) or {"items": []})["items"]
        return found

    def apply(self, objects: Sequence[Mapping[str, Any]], namespace: str = "default") -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", f"--namespace={namespace}", "--filename=-", given=json.dumps(listed))

    # -- bringing it up

    def _start(self) -> None:
        bridge = self.bridge = _bridge()
        self._hosts.mkdir(parents=True)
        self._pause_image()
        ports = dict(zip(("etcd", "peer", "api"), _free_ports(3), strict=True))
        self.config.write_text(json.dumps(_kubeconfig(ports["api"])))
        (self.root / "tokens.csv").write_text(f"{TOKEN},admin,admin,system:masters\n")
        key = self.root / "service-accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], capture_output=True, check=True)

        clients, peers = (f"http://127.0.0.1:{ports[name]}" for name in ("etcd", "peer"))
        self._run(
            "etcd", str(self._etcd), f"--data-dir={self.root / 'etcd'}",
            f"--listen-client-urls={clients}", f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}", "--unsafe-no-fsync",
        )  # fmt: skip
        self._run(
            "kube-apiserver", f"--etcd-servers={clients}", f"--secure-port={ports['api']}",
            f"--advertise-address={bridge}", f"--cert-dir={self.root / 'certs'}",
            f"--token-auth-file={self.root / 'tokens.csv'}", "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes", f"--service-account-signing-key-file={key}",
            f"--service-account-key-file={key}", f"--service-cluster-ip-range={SERVICES}",
            "--kubelet-preferred-address-types=InternalIP",
        )  # fmt: skip
        self._api = self._stack.enter_context(
            httpx.Client(
                base_url=f"https://127.0.0.1:{ports['api']}", headers={"Authorization": f"Bearer {TOKEN}"},
                verify=False, trust_env=False, timeout=30,
            )
        )  # fmt: skip
        self._until(self._api_ready, "the API answers")
        config = f"--kubeconfig={self.config}"
        self._run(
            "kube-controller-manager", config, "--leader-elect=false", "--port=0", "--secure-port=0",
            f"--service-account-private-key-file={key}",
            # It signs itself: pods trust it by this file.
            f"--root-ca-file={self.root / 'certs/apiserver.crt'}",
        )  # fmt: skip
        self._run("kube-scheduler", config, "--leader-elect=false", "--port=0", "--secure-port=0")
        self._stack.callback(self._unmount)
        self._run("kubelet", *self.kubelet(NODE, bridge, self.root / "kubelet"))
        # An address that kube-proxy has no rule for yet leads nowhere, instead of out of this machine.
        subprocess.run([program("ip"), "route", "replace", SERVICES, "dev", "docker0"], check=True)
        self._stack.callback(subprocess.run, [program("ip"), "route", "del", SERVICES], check=False)
        self._stack.callback(_remove_rules)
        self._run(
            "kube-proxy", config, "--proxy-mode=iptables", f"--hostname-override={NODE}", "--masquerade-all",
            "--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0", "--iptables-min-sync-period=100ms",
            "--metrics-bind-address=", "--healthz-bind-address=",
        )  # fmt: skip
        self._stack.callback(self.delete_pods)
        self._run(
            "dnsmasq", program("dnsmasq"),
            "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root",
            f"--listen-address={bridge}", "--bind-interfaces", f"--hostsdir={self._hosts}", "--pid-file=",
            f"--local=/{DOMAIN}/", "--cache-size=0",
        )  # fmt: skip
        self._volumes = Volumes(self, self.root / "volumes")
        names = threading.Thread(target=self._keep_house, daemon=True)
        names.start()
        self._stack.callback(names.join, 30)
        self._stack.callback(self._ended.set)
        self._until(self.node_ready, "the node is ready")

    def kubelet(self, node: str, address: str, root: Path) -> list[str]:
        """The command of a node's kubelet, which keeps its state in `root`."""
        root.mkdir(parents=True, exist_ok=True)
        settings = root.with_suffix(".json")
        settings.write_text(json.dumps(_kubelet(address, _free_ports(1)[0], self.bridge)))
        return [
            str(self._binaries / "kubelet"), f"--kubeconfig={self.config}", f"--config={settings}",
            f"--root-dir={root}", f"--cert-dir={root.with_suffix('.certs')}", f"--hostname-override={node}",
            f"--node-ip={address}", "--container-runtime=docker", f"--pod-infra-container-image={PAUSE}",
        ]  # fmt: skip

    def _run(self, name: str, *words: str) -> None:
        """Start one program for good: `words`, or Kubernetes' own of that name with them."""
        own = self._binaries / name
        command = [str(own), *words] if own.exists() and str(own) not in words else list(words)
        log = self._stack.enter_context((self.root / f"{name}.log").open("wb"))
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        self._programs[name] = process
        self._stack.callback(_stop, process)

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        def met() -> bool:
            ended = [name for name, process in self._programs.items() if process.poll() is not None]
            assert not ended, f"{ended} ended before {what}\n{self.logs()}"
            return condition()

        wait_for(met, UP_WITHIN, lambda: f"{what}\n{self.logs()}")

    def logs(self, lines: int = 15) -> str:
        """The last lines of every program's log."""
        return "\n".join(
            "\n".join([f"--- {p.name}", *p.read_text(errors="replace").splitlines()[-lines:]])
            for p in sorted(self.root.glob("*.log"))
        )

    def _api_ready(self) -> bool:
        try:
            return self._api.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def node_ready(self, name: str = NODE) -> bool:
        node = self.get(f"/api/v1/nodes/{name}") or {"status": {"conditions": []}}
        return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"])

    def _pause_image(self) -> None:
        if docker("image", "inspect", PAUSE, check=False).returncode == 0:
            return
        context = self.root / "pause"
        context.mkdir()
        shutil.copy(self._binaries / "pause", context)
        (context / "Dockerfile").write_text(
            f'FROM scratch\nLABEL {LABEL}=pause\nCOPY pause /\nUSER 65535:65535\nENTRYPOINT ["/pause"]\n'
        )
        subprocess.run(
            [client() or "docker", "build", "--quiet", f"--tag={PAUSE}", str(context)],
            env={**os.environ, "DOCKER_BUILDKIT": "1"}, capture_output=True, check=True,
        )  # fmt: skip

    # -- cluster DNS: the stand-in's records; and volumes

    def _keep_house(self) -> None:
        while not self._ended.wait(0.5):
            # The API server may be busy, or gone with the cluster.
            with contextlib.suppress(httpx.HTTPError, AssertionError, subprocess.TimeoutExpired):
                self._volumes.keep()
                text = "".join(f"{address} {name}\n" for name, address in self._names())
                known = self._hosts / "services"
                if not known.exists() or known.read_text() != text:
                    # It looks at a file once it is closed, or moved here.
                    (self.root / "services").write_text(text)
                    (self.root / "services").rename(known)

    def _names(self) -> list[tuple[str, str]]:
        """Services that have an address, and the pods of those that have none."""
        found, headless = [], set()
        for service in self.items("/api/v1/services"):
            if service["spec"].get("clusterIP", "None") != "None":
                found.append((_full_name(service), service["spec"]["clusterIP"]))
            else:
                headless.add(_full_name(service))
        for endpoints in self.items("/api/v1/endpoints"):
            name = _full_name(endpoints)
            for subset in endpoints.get("subsets", ()):
                for address in subset.get("addresses", ()) if name in headless else ():
                    found.append((name, address["ip"]))
                    if "hostname" in address:
                        found.append((f"{address['hostname']}.{name}", address["ip"]))
        return sorted(found)

    # -- taking it down

    def delete_pods(self, namespace: str | None = None) -> None:
        """Whatever runs in a namespace, or in any, goes without grace."""
        where, label = "--all-namespaces", "io.kubernetes.pod.name"
        if namespace is not None:
            where, label = f"--namespace={namespace}", f"io.kubernetes.pod.namespace={namespace}"
        self.kubectl(
            "delete", "deployments,statefulsets,jobs,pods", "--all", where, "--force",
            "--grace-period=0", "--wait=false", check=False,
        )  # fmt: skip
        # Without its API object a pod gets all of its grace.
        if left := docker("ps", "--all", "--quiet", f"--filter=label={label}").stdout.split():
            docker("rm", "--force", "--volumes", *left, check=False)

    def _mounts(self) -> list[str]:
        lines = Path("/proc/mounts").read_text().splitlines()
        return [path for line in lines if (path := line.split()[1]).startswith(f"{self.root}/")]

    def _unmount(self) -> None:
        for path in sorted(self._mounts(), reverse=True):
            subprocess.run(["umount", "--lazy", path], check=False)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def program(name: str) -> str:
    """Its path; a user's PATH often lacks /usr/sbin."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or name


def _full_name(service: Mapping[str, Any]) -> str:
    return f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.{DOMAIN}"


def _bridge() -> str:
    """This machine's address on the network of the pods."""
    form = "{{with index .IPAM.Config 0}}{{.Subnet}} {{.Gateway}}{{end}}"
    subnet, *gateway = docker("network", "inspect", "bridge", "--format", form).stdout.split()
    return gateway[0] if gateway else str(next(ipaddress.ip_network(subnet).hosts()))


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _remove_rules() -> None:
    """Take the rules of kubelet and kube-proxy out of this machine's tables, and leave the others."""
    for table in ("nat", "filter", "mangle"):
        saved = subprocess.run(
            [program("iptables-save"), "-t", table], capture_output=True, text=True, check=False
        )
        kept = [line for line in saved.stdout.splitlines() if "KUBE-" not in line]
        subprocess.run(
            [program("iptables-restore"), "-T", table], input="\n".join([*kept, ""]), text=True, check=False
        )


def _kubeconfig(port: int) -> dict[str, Any]:
    server = {"server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True}
    return {
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "here", "cluster": server}],
        "users": [{"name": "admin", "user": {"token": TOKEN}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "admin"}}],
    }  # fmt: skip


def _kubelet(address: str, port: int, names: str) -> dict[str, Any]:
    """Its settings; `names`: who answers for cluster DNS.

    No cgroups of its own, and nothing is thrown out for want of disk or memory.
    """
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "address": address, "port": port, "readOnlyPort": 0, "healthzPort": 0,
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs", "cgroupsPerQOS": False, "enforceNodeAllocatable": [],
        "failSwapOn": False, "clusterDNS": [names], "clusterDomain": DOMAIN,
        "evictionHard": {
            "memory.available": "1Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        # This release overlooks the end of a container now and then, until it looks at all pods again.
        "syncFrequency": "5s",
        # Beta, and on, since 1.22.
        "featureGates": {"SizeMemoryBackedVolumes": True},
    }  # fmt: skip


def why_not() -> str | None:
    """What this machine lacks for it; None when it can be had."""
    if os.getuid():
        return "a kubelet needs root"
    if Path("/var/lib/kubelet/config.yaml").exists():
        return "another kubelet is set up here"
    for name in ("conntrack", "dnsmasq", "ip", "iptables-restore", "openssl"):
        if not Path(program(name)).is_file():
            return f"no {name}: tests/k8s/install.sh installs it"
    return None
