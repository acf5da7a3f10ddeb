"""`glm47-runner demo` as a person meets it."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from entrypoint.commands.smoke.questions import smoke
from tests.stack.by_hand import ENGINE, free_low_port, free_port, wait_for

pytestmark = pytest.mark.stack


class Demo:
    def __init__(self, base: Path) -> None:
        self.log = base / "demo.log"
        self.http_port = free_port()
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GLM47_", "DYN_", "ROLE"))}
        self.environment = kept | {
            "GLM47_RUN_DIR": str(base / "run"),
            "GLM47_PYTHON": str(ENGINE / "python"),
            "GLM47_HTTP_HOST": "127.0.0.1",
            "GLM47_HTTP_PORT": str(self.http_port),
            "GLM47_HEALTH_HOST": "127.0.0.1",
            "GLM47_HEALTH_PORT": str(free_port()),
            "GLM47_NATS_PORT": str(free_port()),
            "GLM47_NATS_MONITOR_PORT": str(free_port()),
            "GLM47_SYSTEM_PORT": str(free_low_port()),
            "GLM47_TERMINATION_LOG": str(base / "termination"),
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "entrypoint", "demo"],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def ready(self) -> bool:
        assert self.process.poll() is None, self.output()
        return "Ctrl-C stops it." in self.output()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Demo]:
    demo = Demo(tmp_path)
    yield demo
    if demo.process.poll() is None:
        demo.process.kill()
        demo.process.wait()


def test_from_the_command_to_an_answer_and_back(running: Demo) -> None:
    wait_for(running.ready, 90, "the demo's ready message")
    report = smoke(f"http://127.0.0.1:{running.http_port}", model="glm-4.7", timeout=30)
    assert report.ok, report.table()
    # What it prints can be pasted as it stands.
    said = re.search(r"^ *(curl \S+/v1/chat/completions.*\\\n.*)$", running.output(), re.MULTILINE)
    assert said, running.output()
    done = subprocess.run(
        shlex.split(said[1].replace("\\\n", " ")), capture_output=True, text=True, timeout=30
    )
    assert '"chat.completion"' in done.stdout, done
    os.kill(running.process.pid, signal.SIGINT)
    assert running.process.wait(60) == 0, running.output()
