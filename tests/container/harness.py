"""Docker for the tests: a thin layer over the client, and containers that clean up after themselves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LABEL = "io.glm47-runner.test"
DEMO_MODEL = "/opt/glm47-runner/demo-model"
MOCKER = {"GLM47_ENGINE": "mocker", "GLM47_MODEL_PATH": DEMO_MODEL}
READY_WITHIN = 90.0
"""Seconds from `docker run` to healthy; about 6 on two idle cores, far more when they are busy."""


def client() -> str | None:
    """The Docker client: Debian's first, which brings BuildKit without a plug-in."""
    for candidate in (os.environ.get("DOCKER"), "/usr/bin/docker", shutil.which("docker")):
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    return None


def docker(*words: str, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run one docker command; output as text, both streams."""
    done = subprocess.run(
        [client() or "docker", *words], capture_output=True, text=True, timeout=timeout, check=False
    )
    if check and done.returncode:
        raise AssertionError(f"docker {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def wait_for(condition: Callable[[], Any], seconds: float, what: str | Callable[[], str]) -> Any:
    """Poll `condition` until it gives something true; AssertionError with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        if result := condition():
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(0.1)


@dataclass
class Container:
    """A started container."""

    name: str
    removed: bool = field(default=False)

    def inspect(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(docker("inspect", self.name).stdout)[0]
        return data

    def state(self) -> dict[str, Any]:
        data: dict[str, Any] = self.inspect()["State"]
        return data

    def health(self) -> str:
        """starting, healthy, unhealthy; `exited N` when it has ended."""
        state = self.state()
        if state["Status"] in ("exited", "dead"):
            return f"exited {state['ExitCode']}"
        return str(state.get("Health", {}).get("Status", "none"))

    def logs(self) -> str:
        done = docker("logs", self.name)
        return done.stdout + done.stderr

    def until_healthy(self, seconds: float = READY_WITHIN) -> None:
        def settled() -> bool:
            health = self.health()
            assert not health.startswith("exited"), f"{self.name} {health}\n{self.logs()}"
            return health == "healthy"

        wait_for(settled, seconds, lambda: f"{self.name} healthy\n{self.logs()}")

    def until_logged(self, text: str, seconds: float = READY_WITHIN) -> None:
        wait_for(lambda: text in self.logs(), seconds, lambda: f"{text!r} logged\n{self.logs()}")

    def wait(self, seconds: float = READY_WITHIN) -> int:
        """The exit code, once it has ended."""
        return int(docker("wait", self.name, timeout=seconds).stdout)

    def stop(self, seconds: int = 60) -> float:
        """`docker stop`; how long it took."""
        began = time.monotonic()
        docker("stop", "-t", str(seconds), self.name, timeout=seconds + 30)
        return time.monotonic() - began

    def exec(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return docker("exec", self.name, *words, check=check)

    def port(self, inside: int) -> int:
        """The host's port for `inside`."""
        return int(docker("port", self.name, str(inside)).stdout.splitlines()[0].rpartition(":")[2])

    def address(self) -> str:
        networks = self.inspect()["NetworkSettings"]["Networks"]
        return str(next(iter(networks.values()))["IPAddress"])

    def remove(self) -> None:
        if not self.removed:
            docker("rm", "-f", "-v", self.name, check=False)
            self.removed = True


@contextmanager
def running(
    image: str, env: Mapping[str, str], args: Sequence[str] = (), command: Sequence[str] = (), name: str = ""
) -> Iterator[Container]:
    """`docker run -d` with fast health checks; removed at the end."""
    name = name or f"glm47-test-{uuid.uuid4().hex[:10]}"
    settings = [word for key, value in env.items() for word in ("-e", f"{key}={value}")]
    docker(
        "run", "-d", "--name", name, "--label", LABEL,
        "--health-interval", "1s", "--health-start-period", "2m", *settings, *args, image, *command,
    )  # fmt: skip
    container = Container(name)
    try:
        yield container
    finally:
        container.remove()


def answer(url: str, tokens: int = 8, timeout: float = 60) -> str:
    """The text of one chat completion; raises what httpx raises."""
    import httpx

    body = {
        "model": "glm-4.7",
        "messages": [{"role": "user", "content": "Say something."}],
        "max_tokens": tokens,
    }
    response = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=timeout)
    response.raise_for_status()
    return str(response.json()["choices"][0]["message"]["content"])
