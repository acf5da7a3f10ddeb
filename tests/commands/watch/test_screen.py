"""`status --watch` in a real terminal, tmux's: what stands there at any moment is a whole picture."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.supervise.status.pages import NEVER, Job, engine
from tests.support.plans import plan, process, server
from tests.support.runner import ROOT, Runner, free_port, until

# What promises things to tests (GLM47_CI_*) is no setting.
ENV = {name: value for name, value in os.environ.items() if not name.startswith("GLM47_")} | {
    "PYTHONPATH": str(ROOT),
    "ROLE": "single",
    "TERM": "xterm-256color",
    "LC_ALL": "C.UTF-8",
}


class Terminal:
    """One tmux server with one window."""

    def __init__(self, directory: Path, *command: str, width: int = 120, height: int = 30) -> None:
        self._tmux = ["tmux", "-S", str(directory / "tmux"), "-f", "/dev/null"]
        line = f"trap : INT; {shlex.join(command)}; echo ended with $?; exec sleep 1000"
        self._run("new-session", "-d", "-x", str(width), "-y", str(height), "sh", "-c", line)

    def _run(self, *words: str) -> str:
        done = subprocess.run(
            [*self._tmux, *words], env=ENV, cwd=ROOT, capture_output=True, text=True, check=True
        )
        return done.stdout

    def text(self) -> str:
        """What stands in the window."""
        return self._run("capture-pane", "-p")

    def press(self, key: str) -> None:
        """One key."""
        self._run("send-keys", key)

    def close(self) -> None:
        """The end of the server."""
        self._run("kill-server")


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[list[Terminal]]:
    if shutil.which("tmux") is None:
        pytest.skip("there is no tmux here: apt install tmux")
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def watch(tmp_path: Path, *ports: int) -> Terminal:
    hosts = [f"127.0.0.1:{port}" for port in ports]
    return Terminal(tmp_path, sys.executable, "-m", "entrypoint", "status", "--watch", *hosts)


def test_a_deployment_without_flicker(watched: list[Terminal], tmp_path: Path) -> None:
    nodes = [
        ("nvl72d001", "prefill worker 0 rank 0", (engine("prefill", "weights"), server("etcd", ready=NEVER))),
        ("nvl72d002", "prefill worker 0 rank 1", (engine("prefill", "capture"),)),
        ("nvl72d003", "decode worker 0 rank 0", (engine("decode", None),)),
    ]  # fmt: skip
    with Job(tmp_path, nodes) as job:
        terminal = watch(tmp_path, job.runners[0].health_port)
        watched.append(terminal)
        wanted = ("1 of 3 nodes ready", "nvl72d002", "capturing CUDA graphs 5/36", "● ready", "◐ starting")
        until(lambda: all(words in terminal.text() for words in wanted), "the whole picture", 40)
        pictures = set()
        end = time.monotonic() + 5
        while time.monotonic() < end:
            picture = terminal.text()
            assert all(words in picture for words in wanted), picture
            pictures.add(picture)
        assert len(pictures) > 2  # it moves: ages do
        os.kill(job.runners[1].process.pid, signal.SIGKILL)
        until(lambda: "✖ dead" in terminal.text(), "the death of a node", 15)
        terminal.press("C-c")
        until(lambda: "ended with 1" in terminal.text(), "its end")
        assert "nvl72d002" not in terminal.text()  # the screen is as it was before


def test_the_runner_goes_and_comes_back(watched: list[Terminal], tmp_path: Path) -> None:
    made = plan(process("aggregated"), health_port=free_port())
    with Runner.of_plan(made, tmp_path) as runner:
        terminal = watch(tmp_path, runner.health_port)
        watched.append(terminal)
        until(lambda: "1 of 1 nodes ready" in terminal.text(), "the picture", 40)
        os.kill(runner.process.pid, signal.SIGKILL)
        began = time.monotonic()
        until(lambda: "✖ dead" in terminal.text(), "its death", 30)
        assert time.monotonic() - began < 5
    with Runner.of_plan(made, tmp_path) as runner:
        until(lambda: "1 of 1 nodes ready" in terminal.text(), "its return", 40)
        runner.process.terminate()
        until(lambda: "○ ended" in terminal.text(), "its end", 15)
        assert "asked to stop by SIGTERM" in terminal.text()


def test_without_a_terminal_it_is_a_table_each_time(tmp_path: Path) -> None:
    with Runner.of_plan(plan(process("aggregated")), tmp_path) as runner:
        runner.wait_for("| ready after")
        command = [sys.executable, "-m", "entrypoint", "status", "--watch", f"127.0.0.1:{runner.health_port}"]
        with subprocess.Popen(command, cwd=ROOT, env=ENV, stdout=subprocess.PIPE, text=True) as shown:
            assert shown.stdout is not None
            lines = [shown.stdout.readline() for _ in range(4)]
            shown.send_signal(signal.SIGINT)
        assert sum(line.startswith("HOST") for line in lines) == 2 and "\x1b" not in "".join(lines)
