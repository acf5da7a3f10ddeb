"""One more node of the tests' Kubernetes, as if it were another machine: it can be lost.

Its Docker engine and kubelet live in namespaces of their own for processes and mounts, so that they all die
at once and find none of the other node's directories; its pods have a bridge of their own. Addresses,
kube-proxy and volumes are this machine's. What it adds to the machine's tables it takes out again.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.container.harness import client, docker, wait_for
from tests.k8s.kubernetes import PAUSE, Kubernetes, program
from tests.k8s.started import Started

BRIDGE = "glm47-machine"
ADDRESS = "172.30.47.1"
NETWORK = f"{ADDRESS}/24"
OWN = ("/var/log/pods", "/var/log/containers", "/var/lib/dockershim", "/run/containerd")
"""Directories whose paths kubelet and containerd do not let one choose."""
UP_WITHIN = 120.0


class Machine(Started):
    """A context manager, for as long as it lasts; `name`: of its node."""

    def __init__(self, kubernetes: Kubernetes, images: set[str], name: str) -> None:
        super().__init__()
        self.name = name
        self._kubernetes = kubernetes
        self._images = images
        self._root = kubernetes.root / name
        self._socket = f"unix://{self._root / 'docker.sock'}"

    def dies(self) -> None:
        """Without a word to anybody: its network goes first, so that nobody hears a connection end."""
        for chain, way in (("FORWARD", "-i"), ("FORWARD", "-o"), ("INPUT", "-i"), ("OUTPUT", "-o")):
            self._rule("filter", chain, way, BRIDGE, "-j", "DROP")
        self._kill()

    def _start(self) -> None:
        self._root.mkdir(parents=True)
        self._network()
        # The first process of its namespace: all others die with it.
        log = self._stack.enter_context((self._root.with_suffix(".log")).open("wb"))
        own = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self._process = subprocess.Popen(
            [*own, "sh", "-c", self._script()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        gone = ("delete", "node", self.name, "--wait=false")
        self._stack.callback(self._kubernetes.kubectl, *gone, check=False)
        self._stack.callback(self._kill)
        self._until(lambda: not self._docker("version").returncode, "its Docker engine answers")
        saved = f"'{client()}' save {' '.join(sorted({PAUSE, *self._images}))}"
        subprocess.run(["sh", "-c", f"{saved} | '{client()}' --host={self._socket} load"], check=True)
        (self._root / "has-images").touch()
        self._until(lambda: self._kubernetes.node_ready(self.name), f"the node {self.name} is ready")

    def _script(self) -> str:
        """What starts the machine: engine and, once that has the images, kubelet."""
        engine = [
            program("dockerd"), f"--host={self._socket}", f"--data-root={self._root / 'docker'}",
            f"--exec-root={self._root / 'run'}", f"--pidfile={self._root / 'docker.pid'}",
            f"--config-file={self._root / 'docker.json'}", f"--bridge={BRIDGE}", "--iptables=false",
            "--ip-forward=false", "--ip-masq=false", "--userland-proxy=false",
        ]  # fmt: skip
        (self._root / "docker.json").write_text("{}")
        kubelet = [
            *self._kubernetes.kubelet(self.name, ADDRESS, self._root / "kubelet"),
            f"--docker-endpoint={self._socket}",
        ]
        hidden = [f"mkdir -p {path} && mount -t tmpfs none {path}" for path in OWN]
        has_images = f"until [ -e {self._root / 'has-images'} ]; do sleep 0.2; done"
        return "\n".join(
            ["set -e", *hidden, f"{' '.join(engine)} &", has_images, f"{' '.join(kubelet)} &", "wait"]
        )

    def _network(self) -> None:
        ip = program("ip")
        subprocess.run([ip, "link", "add", BRIDGE, "type", "bridge"], check=True)
        self._stack.callback(subprocess.run, [ip, "link", "del", BRIDGE], check=False)
        subprocess.run([ip, "address", "add", NETWORK, "dev", BRIDGE], check=True)
        subprocess.run([ip, "link", "set", BRIDGE, "up"], check=True)
        # Docker lets nobody in from other bridges, and hides its containers' addresses from them.
        for way in ("-i", "-o"):
            self._rule("filter", "DOCKER-USER", way, BRIDGE, "-j", "ACCEPT")
        self._rule("nat", "POSTROUTING", "-d", NETWORK, "!", "-s", NETWORK, "-j", "ACCEPT")

    def _rule(self, table: str, chain: str, *words: str) -> None:
        """A rule before all others, for as long as the machine's context lasts."""
        command = [program("iptables"), "-w", "-t", table]
        subprocess.run([*command, "-I", chain, *words], check=True)
        self._stack.callback(subprocess.run, [*command, "-D", chain, *words], check=False)

    def _docker(self, *words: str) -> subprocess.CompletedProcess[str]:
        return docker(f"--host={self._socket}", *words, check=False)

    def _kill(self) -> None:
        if self._process.poll() is None:
            children = (
                Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
            )
            for child in children:
                os.kill(int(child), signal.SIGKILL)
        self._process.wait()

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        def met() -> bool:
            assert self._process.poll() is None, f"{self.name} ended before {what}\n{self._kubernetes.logs()}"
            return condition()

        wait_for(met, UP_WITHIN, lambda: f"{what}\n{self._kubernetes.logs()}")
