"""Compose for the tests: a project of its own for every layout that is brought up."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.container.harness import ROOT, client


def command() -> list[str] | None:
    """`docker compose` where the plug-in is there, else the stand-alone binary of the development tools."""
    docker = client()
    if (
        docker
        and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0
    ):
        return [docker, "compose"]
    beside = Path(sys.executable).with_name("docker-compose")
    found = str(beside) if beside.exists() else shutil.which("docker-compose")
    return [found] if found else None


@dataclass
class Project:
    """A Compose project: files, environment, name."""

    files: Sequence[str]
    env: Mapping[str, str]
    name: str
    cwd: Path = ROOT

    def run(self, *words: str, check: bool = True, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        files = [word for name in self.files for word in ("-f", name)]
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("GLM47_", "COMPOSE_"))}
        done = subprocess.run(
            [*(command() or ["docker-compose"]), *files, "-p", self.name, *words],
            cwd=self.cwd, env={**clean, **self.env}, capture_output=True, text=True, check=False,
            timeout=timeout,
        )  # fmt: skip
        if check and done.returncode:
            logs = (
                "" if words[0] in ("logs", "config") else self.run("logs", "--no-color", check=False).stdout
            )
            raise AssertionError(
                f"docker compose {' '.join(words)}: {done.returncode}\n{done.stderr}\n{logs}"
            )
        return done

    def url(self, service: str = "frontend") -> str:
        """The API's address on this host."""
        return "http://" + self.run("port", service, "8000").stdout.strip()

    def container(self, service: str) -> str:
        return self.run("ps", "-q", "-a", service).stdout.split()[0]


@contextmanager
def project(image: str, *files: str, **env: str) -> Iterator[Project]:
    """The layout of `files` (none: a plain `docker compose`); brought down at the end, volumes included."""
    given = {"GLM47_ENGINE": "mocker", "RUNNER_IMAGE": image, "API_ADDRESS": "127.0.0.1", "API_PORT": "0"}
    made = Project(files, {**given, "HEALTH_INTERVAL": "1s", **env}, f"glm47-test-{uuid.uuid4().hex[:8]}")
    try:
        yield made
    finally:
        made.run("down", "--volumes", "--timeout", "60", check=False)
