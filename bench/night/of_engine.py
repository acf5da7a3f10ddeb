"""Faults with SGLang itself, on the CPU: in one container, and in a worker over two nodes of a Slurm job."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench.clients import greedy
from bench.deployment import Deployment, deployment, kill_container, processes, wait
from bench.night.scene import Eye, Ground, Scene, Told
from entrypoint.supervise import process_tree
from tests.engine.machines import cable
from tests.support import cpu_engine
from tests.support.node import second_node
from tests.support.runner import free_port

ANSWER = 3000
"""Tokens of the request that is in flight."""


def settings(ground: Ground) -> dict[str, str]:
    """The CPU engine's."""
    made = cpu_engine.settings(engine_model(ground))
    # The deployment puts the repository before what the engine needs.
    os.environ["PYTHONPATH"] = made.pop("PYTHONPATH")
    return made


def engine_model(ground: Ground) -> Path:
    """The model of random words, made once."""
    place = ground.out / "engine-model"
    return place if place.exists() else cpu_engine.make_model(place)


def engine(it: Deployment, container: str, title: str) -> int:
    """The pid of the engine's process whose title begins so; empty: of the engine's first one."""
    if not title:
        pid: int = next(p["pid"] for p in it.runners[container].get("/status")[1]["processes"] if p["phase"])
        return pid
    return next(pid for pid in processes(it.runners[container]) if process_tree.title(pid).startswith(title))


def ask(it: Deployment) -> None:
    """A request that is still being answered when the fault comes."""
    threading.Thread(target=greedy, args=(it.http, "long", ANSWER), daemon=True).start()
    metric = "requests_in_flight"

    def flying() -> bool:
        found = (runner.get("/status")[1] for runner in it.runners.values())
        return any(p.get(metric) for status in found for p in status["processes"])

    wait(flying, 30, "a request is in flight")


def in_one(scene: Scene, ground: Ground, title: str, signum: signal.Signals, busy: bool) -> Told:
    """A signal to a process of the engine in one ready container."""
    with deployment(ground.room(scene.name), [], **settings(ground)) as it:
        it.common.pop("GLM47_HEAD_ADDRESS")
        it.start("single", "single")
        it.ready("single")
        if busy:
            ask(it)
        pid = engine(it, "single", title)
        eye = Eye(scene, it)
        os.kill(pid, signum)
        return eye.told("single")


def start_fails(scene: Scene, ground: Ground, harm: Callable[[Ground, Path], dict[str, str]]) -> Told:
    """One container that cannot start."""
    room = ground.room(scene.name)
    with deployment(room, [], **(settings(ground) | harm(ground, room))) as it:
        it.common.pop("GLM47_HEAD_ADDRESS")
        it.start("single", "single")
        eye = Eye(scene, it)
        return eye.told("single")


def no_memory(scene: Scene, ground: Ground) -> Told:
    """The scheduler gets no more memory than it has when it begins to load."""
    with deployment(ground.room(scene.name), [], **settings(ground)) as it:
        it.common.pop("GLM47_HEAD_ADDRESS")
        it.start("single", "single")
        wait(lambda: has(it, "single", "sglang::scheduler"), 200, "the scheduler is there")
        pid = engine(it, "single", "sglang::scheduler")
        used = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
        eye = Eye(scene, it)
        resource.prlimit(pid, resource.RLIMIT_AS, (used, used))
        return eye.told("single")


def half_a_shard(ground: Ground, room: Path) -> dict[str, str]:
    """The copy of the weights broke off."""
    model = room / "model"
    shutil.copytree(engine_model(ground), model)
    shard = next(model.glob("*.safetensors"))
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size // 2)
    return {"GLM47_MODEL_PATH": str(model)}


def with_extra(ground: Ground, room: Path, arguments: str) -> dict[str, str]:
    """More arguments for the engine."""
    return {"GLM47_EXTRA_ARGS": f"{settings(ground)['GLM47_EXTRA_ARGS']} {arguments}"}


@contextmanager
def over_two(
    scene: Scene, ground: Ground, *ready: str, before: tuple[str, ...] = (), **of_follower: str
) -> Iterator[Deployment]:
    """TP 2 over this machine and a namespace: two nodes of a Slurm job, whose runners ask each other.

    `before`: words before those that have the follower run elsewhere; `of_follower`: settings of its own.
    """
    room = ground.room(scene.name)
    with second_node() as far:
        nodes = far.here, far.address
        job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": ",".join(nodes), "GLM47_TP": "2",
               "GLM47_DECODE_NODES": "2", "GLM47_LOG_DIR": str(room / "logs")}  # fmt: skip
        with deployment(room, [], **(settings(ground) | job)) as it:
            it.common.pop("GLM47_HEAD_ADDRESS")
            health = str(free_port())
            for rank, (name, interface) in enumerate(
                (("leader", far.interface_here), ("follower", far.interface))
            ):
                own = cable(interface) | {"SLURMD_NODENAME": nodes[rank], "SLURM_NODEID": str(rank)}
                own |= of_follower if rank else {}
                words = (*before, *far.command()) if rank else ()
                it.start(name, "auto", None, nodes[rank], words, GLM47_HEALTH_PORT=health, **own)
            it.ready(*ready)
            yield it


def rank(scene: Scene, ground: Ground, container: str, signum: signal.Signals) -> Told:
    """A signal to the scheduler of one rank of two, with a request in flight."""
    with over_two(scene, ground, "leader", "follower") as it:
        ask(it)
        pid = engine(it, container, "sglang::scheduler")
        eye = Eye(scene, it)
        os.kill(pid, signum)
        return eye.told("leader", "follower")


def node(scene: Scene, ground: Ground) -> Told:
    """Every process of the follower's container killed at once, as when its node is gone."""
    with over_two(scene, ground, "leader", "follower") as it:
        ask(it)
        eye = Eye(scene, it)
        kill_container(it.runners["follower"])
        return eye.told("leader")


def stopped_in_its_start(scene: Scene, ground: Ground) -> Told:
    """A rank that is stopped while the engine starts."""
    with over_two(scene, ground) as it:
        wait(lambda: has(it, "follower", "sglang::scheduler"), 200, "the follower's scheduler is there")
        pid = engine(it, "follower", "sglang::scheduler")
        eye = Eye(scene, it)
        os.kill(pid, signal.SIGSTOP)
        return eye.told()


def has(it: Deployment, container: str, title: str) -> bool:
    """Whether there is a process whose title begins so."""
    runner = it.runners[container]
    return any(process_tree.title(pid).startswith(title) for pid in processes(runner))


def scenes(ground: Ground) -> list[Scene]:
    """Every one, in the order in which they are played."""
    kill, stop = signal.SIGKILL, signal.SIGSTOP
    scheduler, detokenizer = "sglang::scheduler", "sglang::detokenizer"
    extra = partial(with_extra, arguments="--tensor-paralel-size 1")
    rows: list[tuple[str, str, str, Callable[[Scene, Ground], Told]]] = [
        ("scheduler killed, busy", r"its process sglang::scheduler \S* ?\(pid \d+\) (?:is|was) dead", "",
         partial(in_one, title=scheduler, signum=kill, busy=True)),
        ("detokenizer killed, busy", r"its process sglang::detokenizer \(pid \d+\) (?:is|was) dead", "",
         partial(in_one, title=detokenizer, signum=kill, busy=True)),
        ("scheduler stopped, idle", r"sglang::scheduler.* is stopped by a signal|behind since.*stopped", "",
         partial(in_one, title=scheduler, signum=stop, busy=False)),
        ("engine's parent stopped, busy", r"(?:hangs|stopped by a signal|no answer|not answered)", "",
         partial(in_one, title="", signum=stop, busy=True)),
        ("half a shard of the weights", r"safetensors", "", partial(start_fails, harm=half_a_shard)),
        ("a misspelt option of the engine", r"--tensor-paralel-size.*--tensor-parallel-size", "",
         partial(start_fails, harm=extra)),
        ("no memory left while loading", r"(?i)can't allocate memory|out of memory|MemoryError|bad_alloc", "",
         no_memory),
        ("follower stopped, busy", r"rank 1 of 2 \(node \S+\.2\) is behind",
         r"stopped by a signal|rank at ", partial(rank, container="follower", signum=stop)),
        ("leader stopped, busy", r"rank 0 of 2 \(node \S+\.1\) is behind|TP0.*stopped by a signal",
         r"stopped by a signal", partial(rank, container="leader", signum=stop)),
        ("follower's scheduler killed, busy", r"sglang::scheduler_TP1 \(pid \d+\) (?:is|was) dead",
         r"lost the rank at", partial(rank, container="follower", signum=kill)),
        ("node of the follower lost, busy", r"lost (?:the rank at|.* on) 10\.147\.\d+\.2\b", r"ready", node),
        ("follower stopped in its start",
         r"node \S+\.2\).*behind|scheduler_TP1.*stopped by a signal", "", stopped_in_its_start),
    ]  # fmt: skip
    return [Scene(name, "SGLang", named, follows, play) for name, named, follows, play in rows]
