"""Faults on the mocker, in three containers: etcd with NATS and a frontend, prefill, and decode."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench.deployment import Deployment, deployment, kill_container, wait
from bench.night.scene import Eye, Ground, Scene, Told
from entrypoint.supervise import process_tree
from tests.engine.machines import cable
from tests.support.node import second_node
from tests.support.runner import free_port
from tests.support.stack import chat

BOTH = ("prefill", "decode")


@contextmanager
def three(ground: Ground, name: str, *ready: str, **settings: str) -> Iterator[Deployment]:
    """A deployment whose containers `ready` are; those that are not named are not started."""
    common = {"GLM47_ENGINE": "mocker", "GLM47_MODEL_PATH": str(ground.model), "GLM47_PREFILL_WORKERS": "1",
              "GLM47_DECODE_WORKERS": "1", "DYN_TCP_RPC_HOST": "127.0.0.1"}  # fmt: skip
    with deployment(ground.room(name), [], **common, **settings) as it:
        for container in ready:
            it.start(container, "etcd,nats,frontend" if container == "head" else container)
        it.ready(*(c for c in ready if c != "head" or len(ready) == 3))
        yield it


def child(it: Deployment, container: str, process: str) -> int:
    """The pid of a process, as its container's status has it."""
    pid: int = it.runners[container].status_of(process)["pid"]
    return pid


def signalled(
    scene: Scene, ground: Ground, container: str, process: str, signum: signal.Signals, ends: tuple[str, ...]
) -> Told:
    """A signal to one process of a ready deployment."""
    with three(ground, scene.name, "head", *BOTH) as it:
        pid = child(it, container, process)
        eye = Eye(scene, it)
        os.kill(pid, signum)
        return eye.told(*ends)


def node_lost(scene: Scene, ground: Ground) -> Told:
    """Every process of the decode container killed at once, as when its node is gone."""
    with three(ground, scene.name, "head", *BOTH) as it:
        eye = Eye(scene, it)
        kill_container(it.runners["decode"])
        return eye.told()


def refused(
    scene: Scene, ground: Ground, harm: Callable[[Path, dict[str, str]], None], ends: bool = True
) -> Told:
    """A decode container whose settings, model or machine are not as they should be; the others are up."""
    with three(ground, scene.name, "head", "prefill") as it:
        settings: dict[str, str] = {}
        harm(ground.room(scene.name), settings)
        eye = Eye(scene, it)
        it.start("decode", "decode", None, **settings)
        return eye.told(*(("decode",) if ends else ()))


def no_model(room: Path, settings: dict[str, str]) -> None:
    """The model is not on this node."""
    settings["GLM47_MODEL_PATH"] = str(room / "nowhere")


def half_a_config(room: Path, settings: dict[str, str], model: Path) -> None:
    """The copy of the model broke off in config.json."""
    copy = room / "model"
    shutil.copytree(model, copy)
    config = copy / "config.json"
    config.write_bytes(config.read_bytes()[:200])
    settings["GLM47_MODEL_PATH"] = str(copy)


def wrong_setting(room: Path, settings: dict[str, str]) -> None:
    """A name that nobody knows."""
    settings["GLM47_HTTP_PROT"] = "8000"


def unreachable(room: Path, settings: dict[str, str]) -> None:
    """Another machine's address for the head; nobody is there (RFC 5737)."""
    settings["GLM47_HEAD_ADDRESS"] = "192.0.2.99"


def full_disk(room: Path, settings: dict[str, str]) -> None:
    """The logs go where there is no room."""
    place = room / "full"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", place], check=True)
    with (place / "others").open("wb") as file:
        try:
            file.write(b"x" * (1 << 20))
            file.flush()
        except OSError:
            pass
    settings["GLM47_LOG_DIR"] = str(place / "logs")


def read_only(room: Path, settings: dict[str, str]) -> None:
    """The run directory cannot be written."""
    settings["GLM47_RUN_DIR"] = "/proc/glm47"


def port_taken(scene: Scene, ground: Ground) -> Told:
    """Somebody else listens on the decode worker's port."""
    with socket.socket() as other:
        other.bind(("0.0.0.0", free_port()))
        other.listen()

        def harm(room: Path, settings: dict[str, str]) -> None:
            settings["GLM47_SYSTEM_PORT"] = str(other.getsockname()[1])

        return refused(scene, ground, harm)


def never_came(scene: Scene, ground: Ground) -> Told:
    """The decode container is never started."""
    with three(ground, scene.name, "head", "prefill") as it:
        eye = Eye(scene, it)
        return eye.told()


def worker_hung_silently(scene: Scene, ground: Ground) -> Told:
    """The mocker is stopped with all its threads."""
    with three(ground, scene.name, "head", *BOTH) as it:
        pid = child(it, "decode", "decode")
        eye = Eye(scene, it)
        for each in (pid, *process_tree.children(pid)):
            os.kill(each, signal.SIGSTOP)
        return eye.told("decode")


AHEAD = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(clock, now);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) now->tv_sec += 300;
    return code;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    int code = clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return code;
}
time_t time(time_t *into) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (into) *into = exact.tv_sec;
    return exact.tv_sec;
}
"""
"""A clock of the day that is 300 s ahead. libfaketime also changes sleeps by the other clock, which Python's
time.sleep does not survive; a time namespace has no clock of the day."""


def skewed(scene: Scene, ground: Ground) -> Told:
    """Two nodes of a Slurm job; every process of the second reads a clock that is 300 s ahead."""
    room = ground.room(scene.name)
    (room / "ahead.c").write_text(AHEAD)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", room / "ahead.so", room / "ahead.c", "-ldl"], check=True)
    clock = {"LD_PRELOAD": str(room / "ahead.so")}
    with second_node() as far:
        nodes = far.here, far.address
        job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": ",".join(nodes), "GLM47_ENGINE": "mocker",
               "GLM47_MODEL_PATH": str(ground.model), "GLM47_PREFILL_WORKERS": "1",
               "GLM47_PREFILL_NODES": "1", "GLM47_DECODE_WORKERS": "1", "GLM47_DECODE_NODES": "1",
               "GLM47_NATS_PORT": str(free_port()), "GLM47_NATS_MONITOR_PORT": str(free_port())}  # fmt: skip
        with deployment(room, [], **job) as it:
            it.common.pop("GLM47_HEAD_ADDRESS")
            health = str(free_port())
            eye = Eye(scene, it)
            for number, interface in enumerate((far.interface_here, far.interface)):
                own = cable(interface) | {"SLURMD_NODENAME": nodes[number], "SLURM_NODEID": str(number)}
                own |= clock if number else {}
                before = far.command() if number else ()
                name = ("head", "decode")[number]
                it.start(name, "auto", None, nodes[number], before, GLM47_HEALTH_PORT=health, **own)
            told = eye.told()
            it.ready("head", "decode")  # it serves all the same
            return told


def held_back(scene: Scene, ground: Ground) -> Told:
    """The decode worker gets a hundredth of a processor (a quota of cgroup v1), while requests come."""
    group = Path(f"/sys/fs/cgroup/cpu/glm47-night-{os.getpid()}")
    with three(ground, scene.name, "head", *BOTH) as it:
        group.mkdir()
        try:
            (group / "cpu.cfs_period_us").write_text("100000")
            (group / "cpu.cfs_quota_us").write_text("1000")
            pid = child(it, "decode", "decode")
            eye = Eye(scene, it)
            for each in (pid, *process_tree.children(pid)):
                (group / "cgroup.procs").write_text(str(each))
            for _ in range(4):
                threading.Thread(target=chat, args=(it.http, 200), daemon=True).start()
            return eye.told()
        finally:
            for held in (group / "cgroup.procs").read_text().split():
                (group.parent / "cgroup.procs").write_text(held)
            wait(lambda: not (group / "cgroup.procs").read_text(), 10, "its processes are elsewhere")
            group.rmdir()


def etcd_data_full(scene: Scene, ground: Ground) -> Told:
    """etcd's data directory has no room."""
    room = ground.room(scene.name)
    settings: dict[str, str] = {}
    full_disk(room, settings)
    with three(ground, scene.name) as it:
        eye = Eye(scene, it)
        it.start("head", "etcd,nats,frontend", GLM47_ETCD_DATA_DIR=f"{room}/full/etcd")
        return eye.told("head")


def hangs(name: str) -> str:
    """How a runner says that `name` does not answer."""
    return rf"\b{name} (?:hangs|has not answered|does not answer|did not answer)"


def scenes(ground: Ground) -> list[Scene]:
    """Every one, in the order in which they are played."""
    kill, stop = signal.SIGKILL, signal.SIGSTOP
    bad = partial(half_a_config, model=ground.model)
    lost = r"etcd"
    rows: list[tuple[str, str, str, Callable[[Scene, Ground], Told]]] = [
        ("etcd killed", r"etcd ended: killed by SIGKILL", lost,
         partial(signalled, container="head", process="etcd", signum=kill, ends=())),
        ("etcd hangs", hangs("etcd"), lost,
         partial(signalled, container="head", process="etcd", signum=stop, ends=())),
        ("NATS hangs", hangs("nats"), r"nats",
         partial(signalled, container="head", process="nats", signum=stop, ends=())),
        ("frontend hangs", hangs("frontend"), "",
         partial(signalled, container="head", process="frontend", signum=stop, ends=())),
        ("frontend killed", r"frontend ended: killed by SIGKILL", "",
         partial(signalled, container="head", process="frontend", signum=kill, ends=())),
        ("decode killed", r"decode ended: killed by SIGKILL", "",
         partial(signalled, container="decode", process="decode", signum=kill, ends=("decode",))),
        ("decode hangs", hangs("decode"), "", worker_hung_silently),
        ("node of decode lost", r"0 of 1 (?:backend|decode)", r"decode is ready|ready after", node_lost),
        ("decode never started", r"(?:0 of 1 (?:backend|decode)|no decode)", "", never_came),
        ("no model on one node", r"cannot .*nowhere", "", partial(refused, harm=no_model)),
        ("half a config.json on one node", r"config\.json", "", partial(refused, harm=bad)),
        ("a setting with a wrong name", r"GLM47_HTTP_PROT.*GLM47_HTTP_PORT", "",
         partial(refused, harm=wrong_setting)),
        ("head unreachable", r"etcd-server: no (?:connection to|answer from) 192\.0\.2\.99:", "",
         partial(refused, harm=unreachable, ends=False)),
        ("disk of the logs full", r"No space left on device", "",
         partial(refused, harm=full_disk, ends=False)),
        ("run directory cannot be written", r"cannot .*/proc/glm47.*GLM47_RUN_DIR", "",
         partial(refused, harm=read_only)),
        ("port taken by another program", r"cannot listen on .* for decode.* by python", "", port_taken),
        ("decode held back to 1 % of a processor", r"decode is slow: its processor quota was used up", "",
         held_back),
        ("a node's clock is 300 s ahead", r"the clock of 10\.147\.\d+\.2 is (?:299|300)\.\d s ahead", "",
         skewed),
        ("etcd's disk full", r"etcd.*(?:no space left|No space left|room)", "", etcd_data_full),
    ]  # fmt: skip
    return [Scene(name, "mocker", named, follows, play) for name, named, follows, play in rows]
