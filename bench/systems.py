"""The four systems, each told to run the same three children: etcd, nats, and a worker that needs both.

Every one forwards the children's output to its own standard output, as a container's logs need it.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.container import write_script
from tests.support.runner import ROOT, free_port

BIN = Path(sys.executable).parent
CHILDREN = ("etcd", "nats", "worker")


@dataclass(frozen=True)
class Job:
    """What one container is to run."""

    folder: Path
    behaviours: Mapping[str, str]
    """Shell text by child."""
    etcd_port: int
    nats_port: int
    worker_port: int
    model: Path
    """A model directory: the runner checks it and corrects its generation_config.json on every start."""
    fate: bool = False
    """The container must end when the worker does."""
    serving: bool = False
    """The worker's server says that it is ready; otherwise it loads for ever."""

    def script(self, name: str, path: Path | None = None, *, serve: str = "") -> Path:
        """The executable child `name`; `serve`: arguments of standins.py, for a server beside it."""
        path = path or self.folder / "bin" / name
        return write_script(path, name, self.behaviours[name], notifies=name == "etcd", serve=serve)


@dataclass(frozen=True)
class Command:
    """How a container's first process is started."""

    argv: list[str]
    env: Mapping[str, str]


@dataclass(frozen=True)
class System:
    """One way to supervise a container."""

    name: str
    prepare: Callable[[Job], Command]
    prefix: re.Pattern[bytes]
    """What it puts before a forwarded line of the worker."""
    missing: str | None = None
    """Why it cannot be measured here."""
    gates: str | None = None
    """How the worker is made to wait for etcd's readiness: `port` (it is probed) or `notify`."""
    settle: float = 0.5
    """Seconds after the last child's start until its memory is read."""
    started_after: float = 0.3
    """Seconds until an end does not count as a failed start any more."""


def _runner(job: Job) -> Command:
    # The engine's interpreter is the worker; what is installed is judged by the folders beside it.
    engine = job.folder / "engine"
    (engine / "lib/python3.11/site-packages/ai_dynamo-0.8.1.dist-info").mkdir(parents=True)
    worker = f"http {job.worker_port}" if job.serving else ""
    env = {
        "PYTHONPATH": str(ROOT),
        "ROLE": "etcd,nats,aggregated",
        "GLM47_ENGINE": "mocker",
        "GLM47_PYTHON": str(job.script("worker", engine / "bin/python3", serve=worker)),
        "GLM47_ETCD_BIN": str(job.script("etcd", serve=f'http {job.etcd_port} later <"$BENCH_GO"')),
        "GLM47_NATS_BIN": str(job.script("nats", serve=f"nats {job.nats_port}")),
        "GLM47_MODEL_PATH": str(job.model),
        "GLM47_RUN_DIR": str(job.folder / "run"),
        "GLM47_ETCD_PORT": str(job.etcd_port),
        "GLM47_NATS_PORT": str(job.nats_port),
        "GLM47_SYSTEM_PORT": str(job.worker_port),
        "GLM47_HEALTH_HOST": "127.0.0.1",
        **{f"GLM47_{name}_PORT": str(free_port()) for name in ("ETCD_PEER", "NATS_MONITOR", "HEALTH")},
    }
    return Command([str(BIN / "glm47-runner"), "run"], env)


# supervisord's own way to a container that ends with its worker is an event listener.
_FATE = "#!/bin/sh\nprintf 'READY\\n'\nread -r header\nkill -TERM $PPID\nsleep 1000\n"


def _supervisord(job: Job) -> Command:
    lines = ["[supervisord]", "nodaemon=true", "logfile=/dev/null", "logfile_maxbytes=0"]
    lines.append(f"pidfile={job.folder}/supervisord.pid")
    for name in CHILDREN:
        lines += [
            f"[program:{name}]",
            f"command={job.script(name)}",
            "autorestart=false",
            "stdout_logfile=/dev/stdout",
            "stdout_logfile_maxbytes=0",
            "redirect_stderr=true",
        ]
    if job.fate:
        fate = job.folder / "fate"
        fate.write_text(_FATE)
        fate.chmod(0o755)
        lines += ["[eventlistener:fate]", f"command={fate}", "events=PROCESS_STATE_EXITED"]
    config = job.folder / "supervisord.conf"
    config.write_text("\n".join(lines) + "\n")
    return Command([str(BIN / "supervisord"), "-c", str(config)], {})


def _honcho(job: Job) -> Command:
    procfile = job.folder / "Procfile"
    procfile.write_text("".join(f"{name}: exec {job.script(name)}\n" for name in CHILDREN))
    return Command([str(BIN / "honcho"), "start", "-f", str(procfile)], {})


def _s6(job: Job) -> Command:
    scan = job.folder / "scan"
    for name in CHILDREN:
        service = scan / name
        (service / "log").mkdir(parents=True)
        run = ["#!/bin/sh", "exec 2>&1"]
        if name == "worker":
            # Both are started at once, and s6-svwait fails before etcd's own supervisor is there.
            run.append(f"until s6-svok {scan}/etcd; do sleep 0.01; done")
            run.append(f"s6-svwait -U {scan}/etcd || exit 1")
        notifies = "BENCH_NOTIFY=3 " if name == "etcd" else ""
        run.append(f"{notifies}exec {job.script(name)}")
        if name == "etcd":
            (service / "notification-fd").write_text("3\n")
        if name == "worker" and job.fate:
            _executable(service / "finish", ["#!/bin/sh", f"exec s6-svscanctl -t {scan}"])
        _executable(service / "run", run)
        _executable(service / "log" / "run", ["#!/bin/sh", f"exec s6-log -b 'p{name} |' 1"])
    return Command(["s6-svscan", str(scan)], {})


def _executable(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o755)


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """A container's environment: nothing of the shell that started the benchmark but PATH."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/", "LANG": "C.UTF-8", **extra}


def all_systems() -> list[System]:
    """The runner and the three it is compared with, those that are not installed too."""
    s6 = None if shutil.which("s6-svscan") else "not installed: apt-get install s6"
    honcho = None if (BIN / "honcho").exists() else "not installed: make setup"
    return [
        System("glm47-runner", _runner, re.compile(rb"aggregated \| "), gates="port", settle=1.0),
        System("supervisord", _supervisord, re.compile(rb""), started_after=1.2),
        System("honcho", _honcho, re.compile(rb"\d\d:\d\d:\d\d worker\.1 +\| "), honcho),
        System("s6-svscan", _s6, re.compile(rb"worker \| "), s6, gates="notify"),
    ]
