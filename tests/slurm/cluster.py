"""A real Slurm cluster on one machine: every node a set of namespaces on one bridge.

Needs root, Linux, and Debian's slurmctld, slurmd, slurm-client and munge. Everything it makes lies in one
directory and in namespaces of its own, so several clusters can stand side by side.

    python -m tests.slurm.cluster /var/tmp/somewhere     # brings one up and waits for Ctrl-C
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

TOOLS = ("slurmctld", "slurmd", "srun", "scontrol", "munged", "ip", "unshare", "nsenter", "setpriv")
USER = 65534
"""Jobs run as this user (nobody): never as root."""
NODE_CPUS = 8

SLURM_CONF = """\
ClusterName=glm47test
SlurmctldHost={host}({address})
SlurmctldPort={port}
SlurmdPort={slurmd_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={base}/munge/socket
CredType=cred/munge
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool/%n
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/slurmd.%n.pid
SlurmctldLogFile={base}/slurmctld.log
SlurmdLogFile={base}/slurmd.%n.log
SlurmctldTimeout=30
SlurmdTimeout={slurmd_timeout}
ReturnToService=2
ProctrackType=proctrack/cgroup
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SwitchType=switch/none
MailProg=/bin/true
MpiDefault=none
SchedulerParameters=sched_interval=2,batch_sched_delay=0
JobRequeue=1
KillWait={kill_wait}
MessageTimeout=30
{nodes}
PartitionName=all Nodes={names} Default=YES MaxTime=INFINITE State=UP
"""

CGROUP_CONF = """\
CgroupPlugin={plugin}
CgroupAutomount=no
ConstrainCores=no
ConstrainRAMSpace=no
ConstrainSwapSpace=no
ConstrainDevices=no
"""


def missing() -> str | None:
    """Why a cluster cannot be brought up here; None when it can."""
    if os.geteuid() != 0:
        return "a Slurm cluster needs root"
    for tool in TOOLS:
        if shutil.which(tool) is None:
            return (
                f"{tool} is not installed (Debian: slurmctld slurmd slurm-client munge iproute2 util-linux)"
            )
    return None


def run(*argv: str, check: bool = True, env: dict[str, str] | None = None) -> str:
    """Run a command and return its output; CalledProcessError carries both streams."""
    done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: exit code {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def wait_for(condition: Callable[[], object], seconds: float, what: str, pause: float = 0.1) -> None:
    """Poll until `condition()` is true; TimeoutError names `what` otherwise."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(pause)


@dataclass
class Cluster:
    """A running cluster. `base` must be readable by everybody and not below a private directory."""

    base: Path
    names: tuple[str, ...] = tuple(f"nvl72d{i:03}" for i in range(1, 7))
    kill_wait: int = 30
    slurmd_timeout: int = 20
    bin_first: Path | None = None
    """Directory that jobs find their commands in first (the stand-in for pyxis lies there)."""
    tag: str = field(default_factory=lambda: secrets.token_hex(2))
    subnet: str = ""
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    # -- up and down

    def up(self) -> None:
        """Bring everything up and wait until every node is idle."""
        try:
            self._directories()
            self._network()
            self._munge()
            self._configure()
            self._start("slurmctld", ["slurmctld", "-D", "-f", str(self.conf)])
            wait_for(lambda: "UP" in run("scontrol", "ping", check=False, env=self.env), 20, "slurmctld")
            for name in self.names:
                self.start_node(name)
            wait_for(lambda: self.idle() == len(self.names), 40, "all nodes idle")
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """End every process and remove every namespace that `up` made."""
        with contextlib.suppress(OSError):
            run("scancel", "--full", "--signal=KILL", f"--user={USER}", check=False, env=self.env)
        for name in (*self.names, "slurmctld", "munged"):
            self._stop(name)
        for index in range(len(self.names)):
            run("ip", "netns", "del", self._netns(index), check=False)
        run("ip", "link", "del", self.bridge, check=False)
        for rule in self._rules():
            run("iptables", "-D", *rule, check=False)
        run("umount", str(self.base / "hosts"), check=False)

    def start_node(self, name: str) -> None:
        """Start the node's slurmd in its namespaces."""
        index = self.names.index(name)
        inside = (
            # Ranks that share /dev/shm take each other for processes of one machine.
            "mount -t tmpfs shm /dev/shm && "
            f"mount --bind {self.base}/hosts /etc/hosts && mount --bind {self.base}/hostname.{name} "
            f"/etc/hostname && hostname {name} && exec slurmd -D -N {name} -f {self.conf}"
        )
        self._start(
            name,
            [
                "nsenter",
                f"--net=/run/netns/{self._netns(index)}",
                *("unshare", "--uts", "--ipc", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"),
                *("sh", "-c", inside),
            ],
        )

    def kill_node(self, name: str) -> None:
        """The node's power is cut: every process on it is gone at once, and nothing answers for it."""
        run("ip", "-n", self._netns(self.names.index(name)), "link", "set", "eth0", "down")
        self._stop(name, signal.SIGKILL)

    def revive_node(self, name: str) -> None:
        """The power comes back."""
        netns = self._netns(self.names.index(name))
        run("ip", "-n", netns, "link", "set", "eth0", "up")
        run("ip", "-n", netns, "route", "add", "default", "via", f"{self.subnet}.254")
        self.start_node(name)

    # -- use

    @property
    def conf(self) -> Path:
        return self.base / "slurm.conf"

    @property
    def env(self) -> dict[str, str]:
        """The environment in which Slurm's commands talk to this cluster."""
        keep = {
            k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH", "GLM47_", "ROLE"))
        }
        path = keep.get("PATH", "")
        if self.bin_first is not None:
            path = f"{self.bin_first}:{path}"
        return {**keep, "SLURM_CONF": str(self.conf), "PATH": path, "HOME": str(self.base)}

    def as_user(self, *argv: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
        """Run a command as the unprivileged user, with this cluster's environment; output without the end."""
        done = subprocess.run(
            ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", *argv],
            capture_output=True,
            text=True,
            env={**self.env, **(env or {})},
            cwd=cwd or self.shared,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(argv)}: exit code {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def on_node(self, name: str, *argv: str) -> str:
        """Run a command as root in the node's network, process and mount namespaces."""
        return run("nsenter", f"--target={self.pid_of(name)}", "--all", *argv)

    def pid_of(self, name: str) -> int:
        """Process id (seen from outside) of the node's first process."""
        children = Path(f"/proc/{self._processes[name].pid}/task/{self._processes[name].pid}/children")
        return int(children.read_text().split()[0])

    def job(self, job: int) -> dict[str, str]:
        """What `scontrol show job` says."""
        words = run("scontrol", "--oneliner", "show", "job", str(job), env=self.env).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def idle(self) -> int:
        """How many nodes are idle."""
        return run("sinfo", "-h", "-N", "-o", "%t", check=False, env=self.env).split().count("idle")

    @property
    def shared(self) -> Path:
        """A directory that the user may write on every node."""
        return self.base / "shared"

    @property
    def bridge(self) -> str:
        return f"slurm{self.tag}"

    def address(self, name: str) -> str:
        """The node's address on the bridge."""
        return f"{self.subnet}.{self.names.index(name) + 1}"

    # -- the parts

    def _netns(self, index: int) -> str:
        return f"slurm{self.tag}-{index}"

    def _directories(self) -> None:
        self.base.mkdir(parents=True, exist_ok=True)
        self.base.chmod(0o755)
        for name in ("munge", "state", "spool", "shared"):
            (self.base / name).mkdir(exist_ok=True)
        for name in self.names:
            (self.base / "spool" / name).mkdir(exist_ok=True)
            (self.base / f"hostname.{name}").write_text(f"{name}\n")
        os.chown(self.shared, USER, USER)

    def _rules(self) -> list[list[str]]:
        # Beside a running Docker engine the FORWARD policy is DROP, for bridged packets as well.
        return [["FORWARD", "-i", self.bridge, "-o", self.bridge, "-j", "ACCEPT"]]

    def _network(self) -> None:
        used = run("ip", "-4", "-o", "addr")
        self.subnet = next(f"10.77.{i}" for i in range(256) if f" 10.77.{i}." not in used)
        run("ip", "link", "add", self.bridge, "type", "bridge")
        run("ip", "addr", "add", f"{self.subnet}.254/24", "dev", self.bridge)
        run("ip", "link", "set", self.bridge, "up")
        if shutil.which("iptables"):
            for rule in self._rules():
                run("iptables", "-I", *rule, check=False)
        hosts = ["127.0.0.1 localhost", f"{self.subnet}.254 {socket.gethostname()}"]
        for index, name in enumerate(self.names):
            hosts.append(f"{self.subnet}.{index + 1} {name}")
            netns, outside = self._netns(index), f"sl{self.tag}{index}"
            run("ip", "netns", "add", netns)
            run(*("ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", netns))
            run("ip", "link", "set", outside, "master", self.bridge, "up")
            inside = ("ip", "-n", netns)
            run(*inside, "addr", "add", f"{self.subnet}.{index + 1}/24", "dev", "eth0")
            run(*inside, "link", "set", "eth0", "up")
            run(*inside, "link", "set", "lo", "up")
            run(*inside, "route", "add", "default", "via", f"{self.subnet}.254")
        (self.base / "hosts").write_text("\n".join(hosts) + "\n")

    def _munge(self) -> None:
        munge = self.base / "munge"
        (munge / "key").write_bytes(secrets.token_bytes(128))
        (munge / "key").chmod(0o400)
        self._start(
            "munged",
            [
                *("munged", "--foreground", "--force", "--num-threads=4"),
                *(f"--key-file={munge}/key", f"--socket={munge}/socket", f"--pid-file={munge}/pid"),
                *(f"--log-file={munge}/log", f"--seed-file={munge}/seed"),
            ],
        )
        wait_for((munge / "socket").exists, 10, "munged")

    def _configure(self) -> None:
        plugin = "cgroup/v1" if Path("/sys/fs/cgroup/freezer").is_dir() else "cgroup/v2"
        self.conf.write_text(
            SLURM_CONF.format(
                base=self.base,
                host=socket.gethostname(),
                address=f"{self.subnet}.254",
                port=_free_port(),
                slurmd_port=_free_port(),
                names=",".join(self.names),
                nodes="\n".join(
                    f"NodeName={name} NodeAddr={self.address(name)} CPUs={NODE_CPUS} RealMemory=4000"
                    for name in self.names
                ),
                kill_wait=self.kill_wait,
                slurmd_timeout=self.slurmd_timeout,
            )
        )
        (self.base / "cgroup.conf").write_text(CGROUP_CONF.format(plugin=plugin))

    def _start(self, name: str, argv: list[str]) -> None:
        with (self.base / f"{name}.out").open("ab") as out:
            self._processes[name] = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self.env, start_new_session=True
            )

    def _stop(self, name: str, signum: signal.Signals = signal.SIGTERM) -> None:
        process = self._processes.pop(name, None)
        if process is None:
            return
        if name in self.names:
            # The node's first process takes every process of the node with it.
            with contextlib.suppress(OSError, IndexError, ValueError):
                children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
                os.kill(int(children.split()[0]), signal.SIGKILL)
        process.send_signal(signum)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port


def main(base: str) -> None:
    """Bring a cluster up in `base` and keep it until a signal."""
    cluster = Cluster(Path(base).resolve())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    cluster.up()
    try:
        print(f"SLURM_CONF={cluster.conf}", flush=True)
        signal.pause()
    finally:
        cluster.down()


if __name__ == "__main__":
    main(sys.argv[1])
