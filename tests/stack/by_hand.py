"""Starts the real Dynamo stack without the runner: what a person would type, on ports of its own."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

ENGINE = Path(os.environ.get("GLM47_TEST_ENGINE", Path(sys.prefix) / "engine")) / "bin"


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def free_low_port() -> int:
    """A free port below 32768: Dynamo's system server takes no other."""
    while True:
        port = random.randrange(20000, 32768)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true value of `condition`, polled; TimeoutError after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise TimeoutError(f"{what}: not within {seconds} s")


def get(url: str) -> tuple[int, str]:
    """Status and body of GET `url`; status 0 when nobody listens."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


class Stack:
    """nats-server, dynamo.frontend and dynamo.mocker with a file store, all on 127.0.0.1."""

    def __init__(self, base: Path, model: Path) -> None:
        self.base = base
        self.model = model
        self.nats_port = free_port()
        self.http_port = free_port()
        self.system_port = free_low_port()
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        base.mkdir(parents=True, exist_ok=True)

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("DYN_", "GLM47_", "NATS_", "ETCD_"))}
        return kept | {
            "DYN_FILE_KV": str(self.base / "kv"),
            "DYN_TCP_RPC_HOST": "127.0.0.1",
            "NATS_SERVER": f"nats://127.0.0.1:{self.nats_port}",
            "HF_HUB_OFFLINE": "1",
        }

    def start(self, name: str, argv: list[str], **env: str) -> subprocess.Popen[bytes]:
        with (self.base / f"{name}.log").open("wb") as log:
            child = subprocess.Popen(
                argv,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=self.environment() | env,
                # The mocker of 0.8.1 registers its model's name as the place to read it from.
                cwd=self.model.parent,
                start_new_session=True,
            )
        self.children[name] = child
        return child

    def log(self, name: str) -> str:
        return (self.base / f"{name}.log").read_text(errors="replace")

    def start_nats(self) -> None:
        store = str(self.base / "nats")
        self.start(
            "nats",
            [str(ENGINE / "nats-server"), "-js", "-a", "127.0.0.1", "-p", str(self.nats_port), "-sd", store],
        )

    def nats_answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.nats_port), 1):
            return True
        return False

    def start_frontend(self) -> None:
        argv = [str(ENGINE / "python"), "-m", "dynamo.frontend", "--store-kv", "file"]
        self.start("frontend", [*argv, "--http-host", "127.0.0.1", "--http-port", str(self.http_port)])

    def start_mocker(self, *arguments: str) -> None:
        name = self.model.name
        argv = [str(ENGINE / "python"), "-m", "dynamo.mocker", "--store-kv", "file"]
        self.start(
            "mocker",
            [*argv, "--model-name", name, "--model-path", name, "--speedup-ratio", "100", *arguments],
            DYN_SYSTEM_PORT=str(self.system_port),
            DYN_SYSTEM_HOST="127.0.0.1",
            DYN_SYSTEM_USE_ENDPOINT_HEALTH_STATUS='["generate"]',
        )

    def listed(self) -> list[str]:
        """The models that the frontend lists now; none while it does not answer."""
        status, body = get(f"{self.url}/v1/models")
        return [entry["id"] for entry in json.loads(body)["data"]] if status == 200 else []

    def start_all(self) -> None:
        """NATS first, then the mocker, and the frontend once the mocker says that it is ready.

        By then the model's key is whole, so the frontend cannot read half of it and leave the model
        unlisted. The instance's key may still be on its way; the frontend takes longer to start.
        """
        self.start_nats()
        wait_for(self.nats_answers, 20, "nats-server")
        self.start_mocker()
        health = f"http://127.0.0.1:{self.system_port}/health"
        wait_for(lambda: get(health)[0] == 200, 60, "mocker")
        self.start_frontend()
        wait_for(lambda: get(f"{self.url}/health")[0] == 200, 60, "frontend")

    def stop(self) -> None:
        for child in self.children.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
