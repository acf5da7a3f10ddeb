"""What the runner costs a request: the demo stack under the runner against the same stack by hand.

Both stacks are up at once and asked in turn, one request each, so whatever else the machine does meets both.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench import container
from bench.systems import BIN, environment
from entrypoint.commands.demo import command as demo
from entrypoint.load import load_plan
from entrypoint.plan.probe_types import FrontendProbe, Probe
from entrypoint.plan.types import Plan
from entrypoint.prepare.steps import prepare
from entrypoint.supervise.probes import asking
from tests.support.runner import ROOT, free_port

READY_WITHIN = 90.0
WARM_UP = 30
TOKENS = 8


@dataclass(frozen=True)
class RequestPath:
    """Seconds of every request, in the order they were asked."""

    runner: list[float]
    by_hand: list[float]
    listener: str
    """The command that holds the port's listening socket under the runner."""


def measure(folder: Path, requests: int) -> RequestPath:
    """Ask both stacks `requests` times each. RuntimeError when one does not come up."""
    with _under_runner(folder / "runner") as ours, _by_hand(folder / "hand") as theirs:
        ports = [port_of(plan) for plan in (ours, theirs)]
        connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=30) for port in ports]
        taken: list[list[float]] = [[], []]
        for turn in range(WARM_UP + requests):
            # Who goes first changes, since the second finds the caches warm.
            for side in (0, 1) if turn % 2 else (1, 0):
                seconds = _ask(connections[side], ours.served_model_name)
                if turn >= WARM_UP:
                    taken[side].append(seconds)
        for connection in connections:
            connection.close()
        return RequestPath(taken[0], taken[1], listener_of(ports[0]))


def _ask(connection: http.client.HTTPConnection, model: str) -> float:
    messages = [{"role": "user", "content": "Hello!"}]
    body = json.dumps({"model": model, "messages": messages, "max_tokens": TOKENS})
    at = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    seconds = time.perf_counter() - at
    if answer.status != 200:
        raise RuntimeError(f"the demo stack answers {answer.status}: {text[:200]!r}")
    return seconds


def _settings(folder: Path) -> dict[str, str]:
    ports = ("HTTP", "HEALTH", "NATS", "NATS_MONITOR", "SYSTEM", "BOOTSTRAP")
    chosen = {f"GLM47_{name}_PORT": str(free_port()) for name in ports}
    # Both on the loopback, as neither is for anybody else.
    chosen |= {"GLM47_HTTP_HOST": "127.0.0.1", "GLM47_HEALTH_HOST": "127.0.0.1"}
    python = os.environ.get("GLM47_PYTHON", str(Path(sys.prefix, "engine", "bin", "python")))
    folder.mkdir(parents=True)
    given = environment({**chosen, "GLM47_PYTHON": python, "GLM47_RUN_DIR": str(folder)})
    return demo.environment(given, folder)


@contextlib.contextmanager
def _under_runner(folder: Path) -> Iterator[Plan]:
    env = _settings(folder)
    plan = load_plan(env, folder).plan
    with (folder / "output").open("wb") as out:
        command = [str(BIN / "glm47-runner"), "run"]
        _, process = container.start(command, {**env, "PYTHONPATH": str(ROOT)}, folder, out.fileno())
    try:
        deadline = time.monotonic() + READY_WITHIN
        for part in plan.processes:
            _wait(plan, part.name, process, deadline)
        yield plan
    finally:
        container.end(process)


@contextlib.contextmanager
def _by_hand(folder: Path) -> Iterator[Plan]:
    loaded = load_plan(_settings(folder), folder)
    plan = loaded.plan
    prepare(plan)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with (folder / "output").open("wb") as out:
            for part in plan.processes:
                env = {k: v for k, v in loaded.environ.items() if k not in part.unset_env} | dict(part.env)
                cwd = Path(part.cwd or folder)
                processes.append(container.start(list(part.argv), env, cwd, out.fileno())[1])
                _wait(plan, part.name, processes[-1], time.monotonic() + READY_WITHIN)
        yield plan
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _wait(plan: Plan, name: str, process: subprocess.Popen[bytes], deadline: float) -> None:
    with httpx.Client(trust_env=False, timeout=5) as client:
        while True:
            ready, why = _is_ready(plan, plan.process(name).ready, client)
            if ready:
                return
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} does not come up: {why}: see {plan.run_dir}/output")
            time.sleep(0.1)


def _is_ready(plan: Plan, probe: Probe, client: httpx.Client) -> tuple[bool, str]:
    """Whether it is, and why not; a frontend is when it answers a request."""
    if not isinstance(probe, FrontendProbe):
        try:
            return asking.ask(probe, lambda *_: client)[:2]
        except asking.SilentError as error:
            return False, str(error)
    connection = http.client.HTTPConnection("127.0.0.1", port_of(plan), timeout=30)
    try:
        _ask(connection, plan.served_model_name)
    except (OSError, http.client.HTTPException, RuntimeError) as error:
        return False, str(error)
    finally:
        connection.close()
    return True, ""


def port_of(plan: Plan) -> int:
    """Where the API of `plan` listens."""
    return int(plan.settings["GLM47_HTTP_PORT"].value)


def listener_of(port: int) -> str:
    """The command line of the process that listens on 127.0.0.1:`port`; empty when none is found."""
    wanted = f"0100007F:{port:04X}"
    inodes = {
        f"socket:[{fields[9]}]"
        for fields in map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:])
        if fields[1] == wanted and fields[3] == "0A"
    }
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if any(str(fd.readlink()) in inodes for fd in (entry / "fd").iterdir()):
                return (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""
