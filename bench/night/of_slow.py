"""Nodes that are slow and not broken, with SGLang itself on the CPU: TP 2 over two nodes of a Slurm job."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.deployment import Deployment, processes, wait
from bench.night.of_engine import ask, engine_model, over_two
from bench.night.scene import Eye, Ground, Scene, Told
from entrypoint.supervise import process_tree

HOGS = 4
"""Programs that compute on the follower's core; they go before the follower's own."""
CORE = max(os.sched_getaffinity(0))
RATE = 60_000
"""Bytes a second that the follower may read of its model, which has 4 MB."""
GROUPS = Path("/sys/fs/cgroup/blkio")
ON, OFF = 0.27, 0.82
"""Seconds that the follower's engine runs, and then is stopped."""


@contextmanager
def hogged(it: Deployment) -> Iterator[None]:
    """The follower's container shares one core with HOGS programs."""
    spin = [sys.executable, "-c", "while True: pass"]
    # In sessions of their own: Linux shares a core among sessions first (autogroup).
    apart = ["setsid", "nice", "-n", "-5", "taskset", "-c", str(CORE), *spin]
    hogs = [subprocess.Popen(apart) for _ in range(HOGS)]
    try:
        for pid in processes(it.runners["follower"]):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {CORE})
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def follower_imports(it: Deployment) -> None:
    """Wait until the follower's engine has begun to start."""

    def imports() -> bool:
        code, status = it.runners["follower"].get("/status")
        return code == 200 and any(p["pid"] for p in status["processes"])

    wait(imports, 60, "the follower's engine is there")


def waits(it: Deployment, mark: str) -> None:
    """Wait until the leader is through with a step: before that, nobody waits for the follower."""
    wait(lambda: any(mark in line for line in it.runners["leader"].lines), 300, f"the leader's {mark}")


def core_shared_busy(scene: Scene, ground: Ground) -> Told:
    """Once it serves, while an answer is under way, the follower shares its core."""
    with over_two(scene, ground, "leader", "follower") as it:
        ask(it)
        eye = Eye(scene, it)
        with hogged(it):
            return eye.told()


def often_stopped(scene: Scene, ground: Ground) -> Told:
    """From the begin of its start the follower's engine is stopped three quarters of the time."""
    with over_two(scene, ground) as it:
        follower_imports(it)
        over = threading.Event()

        def stutter() -> None:
            while not over.wait(ON):
                pids = processes(it.runners["follower"])[1:]
                for signum, pause in ((signal.SIGSTOP, OFF), (signal.SIGCONT, 0.0)):
                    for pid in pids:
                        process_tree.signal_process(pid, signum)
                    over.wait(pause)

        thread = threading.Thread(target=stutter)
        thread.start()
        try:
            waits(it, "Init torch distributed begin")
            return Eye(scene, it).told()
        finally:
            over.set()
            thread.join()


@contextmanager
def slow_disk(files: Path, room: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """A copy of `files` on a device of its own, and a command under which that gives RATE bytes a second."""
    image, place, group = room / "image", room / "slow", GROUPS / f"glm47-night-{os.getpid()}"
    place.mkdir(exist_ok=True)
    subprocess.run(["truncate", "-s", "64M", image], check=True)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        shutil.copytree(files, place / "model")
        # What was written is in memory; a new mount has nothing there.
        subprocess.run(["umount", place], check=True)
        subprocess.run(["mount", "-o", "loop,ro", image, place], check=True)
        number = place.stat().st_dev
        group.mkdir()
        throttle = f"{os.major(number)}:{os.minor(number)} {RATE}"
        (group / "blkio.throttle.read_bps_device").write_text(throttle)
        yield place / "model", ("sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$0" "$@"')
    finally:
        wait(lambda: not (group / "cgroup.procs").read_text(), 30, "its processes are gone")
        group.rmdir()
        subprocess.run(["umount", place], check=True)


def slow_reads(scene: Scene, ground: Ground) -> Told:
    """The follower's copy of the model is on a slow disk."""
    with slow_disk(engine_model(ground), ground.room(scene.name)) as (model, before):  # noqa: SIM117
        with over_two(scene, ground, before=before, GLM47_MODEL_PATH=str(model)) as it:
            waits(it, "Load weight end")
            return Eye(scene, it).told()


def scenes() -> list[Scene]:
    """Every one, in the order in which they are played."""
    # Which of its ranks a node's engine holds is known once its schedulers have their names.
    slow = r"(rank 1 of 2|a rank) \(node \S+\.2\) is slow"
    waits = r"waited \d+% of the"
    rows: list[tuple[str, str, Callable[[Scene, Ground], Told]]] = [
        ("follower reads slowly", rf"{slow} since .*it reads \d", slow_reads),
        (
            "follower stopped again and again, starting",
            rf"{slow} since .*stopped by a signal in",
            often_stopped,
        ),
        ("follower shares a core, busy", rf"{slow}: .*{waits} last", core_shared_busy),
    ]
    return [Scene(name, "SGLang", named, "", play) for name, named, play in rows]
