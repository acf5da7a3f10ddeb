"""The real stack: the command as a user runs it, on free ports, with the demo model."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.support.runner import ROOT, Runner, free_port

COMMAND = str(Path(sys.prefix) / "bin" / "glm47-runner")
ENGINE = Path(sys.prefix) / "engine" / "bin"
PORTS = (
    "HTTP_PORT", "HEALTH_PORT", "ETCD_PORT", "ETCD_PEER_PORT", "NATS_PORT", "NATS_MONITOR_PORT",
    "SYSTEM_PORT", "BOOTSTRAP_PORT", "DIST_INIT_PORT",
)  # fmt: skip


def free_ports() -> dict[str, str]:
    """A free port for every port setting."""
    ports: set[int] = set()
    while len(ports) < len(PORTS):
        ports.add(free_port())
    return {f"GLM47_{name}": str(port) for name, port in zip(PORTS, ports, strict=True)}


def run(run_dir: Path, /, *command: str, **settings: str) -> Runner:
    """`glm47-runner run` (or another command) with `settings` in its environment."""
    env = {"GLM47_RUN_DIR": str(run_dir), "GLM47_TERMINATION_LOG": str(run_dir) + ".reason", **settings}
    return Runner(
        [COMMAND, *(command or ("run",))], env=env, health_port=int(settings["GLM47_HEALTH_PORT"]), cwd=ROOT
    )


def ask(port: int | str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    """One request to a frontend: status and parsed body."""
    url = f"http://127.0.0.1:{port}{path}"
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def chat(port: int | str, tokens: int = 8) -> tuple[int, Any]:
    """One chat completion."""
    message = {"role": "user", "content": "Hello!"}
    return ask(
        port, "/v1/chat/completions", {"model": "glm-4.7", "messages": [message], "max_tokens": tokens}
    )


def streamed(port: int | str, tokens: int = 8) -> list[str]:
    """The texts of one streamed chat completion, which has come to its end; HTTPError when it is refused."""
    message = {"role": "user", "content": "Hello!"}
    body = {"model": "glm-4.7", "messages": [message], "max_tokens": tokens, "stream": True}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        lines = [line.decode().strip() for line in answer]
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert data[-1] == "[DONE]", data
    choices = [choice for part in data[:-1] for choice in json.loads(part)["choices"]]
    assert choices[-1]["finish_reason"] == "length", data
    return [choice["delta"]["content"] for choice in choices if choice["delta"].get("content")]
