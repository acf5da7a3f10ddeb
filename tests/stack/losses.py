"""What requests notice of losses, with two workers of each role: `python -m tests.stack.losses [RELEASE…]`.

The real Dynamo with its mocker, a runner for each container, on this machine; what has ended is started anew,
as an orchestrator does. Prints a row of a table for each case: k8s/README.md has them. Takes root: each
container finds its run directory at one path, as pods do, or newer releases reject the second worker.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from entrypoint.commands.demo.model import make_demo_model
from entrypoint.plan.releases import MIGRATES_IN_WORKER, PINNED
from tests.k8s.load import Load, load
from tests.support.dynamo import engine_settings
from tests.support.runner import ROOT, Runner, until
from tests.support.stack import COMMAND, free_ports

WORKERS = ("prefill-0", "prefill-1", "decode-0", "decode-1")
READY = 180.0
"""Seconds that anything may take to be ready, on a machine with others' work."""
AWAY = 60.0
"""Seconds that a server stays away."""


def run(place: Path, base: Path, **settings: str) -> Runner:
    """A runner that finds the directory `place` at a path below `base` that is the same for all."""
    same = base / "run"
    for directory in (place, same):
        directory.mkdir(parents=True, exist_ok=True)
    env = {"GLM47_RUN_DIR": str(same), "GLM47_TERMINATION_LOG": f"{place}.reason", **settings}
    shell = f"mount --bind {place} {same} && exec {COMMAND} run"
    command = ["unshare", "--mount", "sh", "-c", shell]
    return Runner(command, env, int(settings["GLM47_HEALTH_PORT"]), cwd=ROOT)


class Deployment:
    """etcd, NATS, a frontend and two workers of each role."""

    def __init__(self, base: Path, release: str, stack: ExitStack, extra: str) -> None:
        self.base, self.stack = base, stack
        self.own = {name: free_ports() for name in ("etcd", "nats", "frontend", *WORKERS)}
        shared = {k: self.own["etcd"][k] for k in ("GLM47_ETCD_PORT", "GLM47_ETCD_PEER_PORT")}
        shared |= {k: self.own["nats"][k] for k in ("GLM47_NATS_PORT", "GLM47_NATS_MONITOR_PORT")}
        self.shared = shared | {
            **engine_settings(release), "GLM47_ENGINE": "mocker", "GLM47_HEAD_ADDRESS": "127.0.0.1",
            "GLM47_MODEL_PATH": str(make_demo_model(base / "models" / "glm")), "GLM47_PREFILL_WORKERS": "1",
            "DYN_TCP_RPC_HOST": "127.0.0.1", "GLM47_MAX_RESTARTS": "100",
        }  # fmt: skip
        self.extra = extra
        self.runners: dict[str, Runner] = {}
        self.held: set[str] = set()
        """Those that are not to be started anew for now."""
        self.ends: list[str] = []
        for name in self.own:
            self.start(name)
        self.until_ready()
        self.over = threading.Event()
        self.keeper = threading.Thread(target=self._keep, daemon=True)
        self.keeper.start()

    def start(self, name: str) -> None:
        role = name.partition("-")[0]
        settings = {**self.own[name], **self.shared, "ROLE": role}
        if self.extra and role == "frontend":
            settings["GLM47_FRONTEND_EXTRA_ARGS"] = self.extra
        if role in ("etcd", "nats"):
            settings.pop("GLM47_HEAD_ADDRESS")
        self.runners[name] = self.stack.enter_context(run(self.base / name, self.base, **settings))

    def until_ready(self) -> None:
        for name in self.own:
            until(lambda name=name: self.runners[name].get("/readyz")[0] == 200, f"{name} is ready", READY)  # type: ignore[misc]

    def _keep(self) -> None:
        while not self.over.wait(0.1):
            for name, runner in list(self.runners.items()):
                if runner.process.poll() is not None and name not in self.held:
                    self.ends.append(f"{name} {runner.process.returncode}")
                    self.start(name)

    def engine(self, name: str) -> int:
        """The pid of its one process."""
        return int(self.runners[name].status_of(name.partition("-")[0])["pid"])


@contextmanager
def deployment(release: str, extra: str = "") -> Iterator[Deployment]:
    with tempfile.TemporaryDirectory() as base, ExitStack() as stack:
        made = Deployment(Path(base), release, stack, extra)
        try:
            yield made
        finally:
            made.over.set()
            made.keeper.join()


def kill(name: str, *, runner: bool = False) -> Callable[[Deployment], None]:
    """A worker's engine is killed; `runner`: its runner with it, as out of memory does."""

    def act(made: Deployment) -> None:
        pid, before = made.engine(name), made.runners[name]
        if runner:
            before.process.kill()
        os.kill(pid, signal.SIGKILL)
        until(lambda: made.runners[name] is not before, f"{name} is started anew", READY)

    return act


def stop(name: str) -> Callable[[Deployment], None]:
    """A worker is asked to stop, as an update does."""

    def act(made: Deployment) -> None:
        before = made.runners[name]
        before.signal(signal.SIGTERM)
        until(lambda: made.runners[name] is not before, f"{name} is started anew", READY)

    return act


def away(name: str) -> Callable[[Deployment], None]:
    def act(made: Deployment) -> None:
        made.held.add(name)
        pid = made.engine(name)
        made.runners[name].process.kill()
        os.kill(pid, signal.SIGKILL)
        time.sleep(AWAY)
        made.held.remove(name)

    return act


CASES: dict[str, tuple[Callable[[Deployment], None], ...]] = {
    "each prefill worker stopped": (stop("prefill-0"), stop("prefill-1")),
    "each decode worker stopped": (stop("decode-0"), stop("decode-1")),
    "each prefill worker killed": (kill("prefill-0"), kill("prefill-1")),
    "each decode worker killed": (kill("decode-0"), kill("decode-1")),
    "each decode worker killed, its runner too": (
        kill("decode-0", runner=True),
        kill("decode-1", runner=True),
    ),
    "NATS away for 60 s": (away("nats"),),
    "etcd away for 60 s": (away("etcd"),),
}


def row(made: Deployment, case: str, label: str, tokens: int, clients: int) -> None:
    """One case under load, and what came of it."""
    made.ends.clear()
    url = f"http://127.0.0.1:{made.own['frontend']['GLM47_HTTP_PORT']}"

    def answered(asked: Load, since: float, count: int) -> None:
        until(lambda: asked.answered_since(since) >= count, "requests are answered", READY)

    with load(url, clients, tokens, timeout=60) as asked:
        answered(asked, 0, 8)
        for act in CASES[case]:
            act(made)
            made.until_ready()
        answered(asked, time.monotonic(), 8)
    kinds: dict[str, int] = {}
    for one in asked.failed:
        kinds[one.error] = kinds.get(one.error, 0) + 1
    codes = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "-"
    failed = f"{len(asked.failed)} of {len(asked.asked)}"
    print(
        f"| {label} | {case} | {failed} | {asked.outage():.1f} | {codes} | {', '.join(made.ends)} |",
        flush=True,
    )


def main(releases: list[str]) -> None:
    for release in releases:
        with deployment(release) as made:
            for case in CASES:
                row(made, case, f"{release}, 32 tokens", 32, 4)
        # Before 1.0 it is an option of workers, and the mocker does not know it.
        for limit in () if MIGRATES_IN_WORKER.holds_here(release) else (0, 3):
            with deployment(release, f"--migration-limit {limit}") as made:
                for case in ("each decode worker killed", "each decode worker stopped"):
                    row(made, case, f"{release}, 400 tokens, --migration-limit {limit}", 400, 4)


if __name__ == "__main__":
    main(sys.argv[1:] or [PINNED["dynamo"]])
