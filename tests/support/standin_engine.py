"""Stand-in for an SGLang engine, for tests only: it has no GPU and no model.

It starts processes that have the titles, parents and parent-death signal of SGLang's, prints `TITLE pid PID`
for each, and does not notice their death.

python -m tests.support.standin_engine [--reap] [--linger SECONDS] [--port PORT] TITLE[/TITLE] …

`A/B` is a process A with a child B. TERM kills the processes, as the engine's shutdown does, and ends this
one `--linger` seconds later. A process with a title leaves with 0 on USR1; on USR2 it forks a copy of itself,
which ends at once and stays a zombie. `--reap`: wait for the processes one after another, and go on.
`--port`: answer every GET there with 200.
"""

from __future__ import annotations

import argparse
import ctypes
import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from types import FrameType

PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15  # linux/prctl.h


def start(titles: str) -> subprocess.Popen[bytes]:
    """A process whose title is the first of `titles`; the others go below it."""
    first, _, below = titles.partition("/")
    command = [first, "-m", "tests.support.standin_engine", "--child", first, *([below] if below else [])]
    # With another argv[0] Python finds neither its home nor its own path.
    python = os.environ.get("STANDIN_PYTHON", sys.executable)
    environ = {**os.environ, "PYTHONHOME": sys.base_prefix, "STANDIN_PYTHON": python}
    return subprocess.Popen(command, executable=python, env=environ)


def say(line: str) -> None:
    """A whole line, also while others write theirs."""
    os.write(1, f"{line}\n".encode())


def child(title: str, below: list[str]) -> None:
    """A process with a title."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_NAME, title.encode())
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGUSR1, lambda *_: os._exit(0))
    signal.signal(signal.SIGUSR2, lambda *_: copy(title))
    for titles in below:
        start(titles)
    say(f"{title} pid {os.getpid()}")
    while True:
        signal.pause()


def copy(title: str) -> None:
    """Fork, and leave a zombie that has our title."""
    pid = os.fork()
    if pid == 0:
        os._exit(1)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    say(f"copy of {title} pid {pid}")


class Healthy(http.server.BaseHTTPRequestHandler):
    """Answers every GET with 200."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def main(started: list[subprocess.Popen[bytes]], linger: float, reap: bool) -> None:
    """The engine's main process."""

    def stop(signum: int, frame: FrameType | None) -> None:
        say("TERM seen")
        for process in started:
            os.kill(process.pid, signal.SIGKILL)
        time.sleep(linger)
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    say("engine is up")
    while True:
        if not reap:
            signal.pause()
        for process in started:
            say(f"terminated with {process.wait()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--child")
    parser.add_argument("--reap", action="store_true")
    parser.add_argument("--linger", type=float, default=0.0)
    parser.add_argument("--port", type=int)
    parser.add_argument("titles", nargs="*")
    given = parser.parse_intermixed_args()
    if given.child:
        child(given.child, given.titles)
    started = [start(titles) for titles in given.titles]
    if given.port:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", given.port), Healthy)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    main(started, given.linger, given.reap)
