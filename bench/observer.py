"""What watching costs: the runner's share of a processor beside SGLang itself on the CPU.

    .venv/bin/python -m bench.observer [--seconds N]

One runner with an aggregated worker, all its watchers on (hang, dead processes, live hints, probes): idle;
idle with the page open (server-sent events); and with its worker's output joined by 20,000 lines a second, as
a busy engine writes them. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import http.client
import os
import tempfile
import threading
import time
from pathlib import Path

from bench.deployment import deployment
from entrypoint.supervise import process_tree
from tests.support import cpu_engine
from tests.support.runner import Runner

RATE = 20_000
"""Lines a second."""
BATCH = b"[2026-11-25 14:22:01 TP0] Decode batch. #running-req: 8, #token: 4096, token usage: 0.01\n"
TICK = os.sysconf("SC_CLK_TCK")
"""Clock ticks a second."""


def share(runner: Runner, seconds: float) -> float:
    """Of one processor, over so many `seconds`."""
    before, began = _ticks(runner), time.monotonic()
    time.sleep(seconds)
    return (_ticks(runner) - before) / TICK / (time.monotonic() - began)


def _ticks(runner: Runner) -> int:
    found = process_tree.read_stat(runner.process.pid)
    assert found is not None
    return found.ticks


class Flood:
    """Lines into the pipe of the runner's child, as if the engine wrote them."""

    def __init__(self, pid: int) -> None:
        self._file = Path(f"/proc/{pid}/fd/1").open("wb", buffering=0)  # noqa: SIM115
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.lines = 0
        self._thread.start()

    def _run(self) -> None:
        began = time.monotonic()
        while not self._over.wait(0.01):
            due = int((time.monotonic() - began) * RATE) - self.lines
            self._file.write(BATCH * due)
            self.lines += due

    def close(self) -> None:
        """Write no more."""
        self._over.set()
        self._thread.join()
        self._file.close()


def page(runner: Runner) -> http.client.HTTPConnection:
    """The page's stream of events, opened and read by a thread."""
    connection = http.client.HTTPConnection(runner.host, runner.health_port, timeout=60)
    connection.request("GET", "/events")
    answer = connection.getresponse()
    threading.Thread(target=lambda: [*iter(answer.readline, b"")], daemon=True).start()
    return connection


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each measurement")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        room = Path(name)
        settings = cpu_engine.settings(cpu_engine.make_model(room / "model"))
        os.environ["PYTHONPATH"] = settings.pop("PYTHONPATH")
        with deployment(room, [], **settings, GLM47_LOG_DIR=str(room / "logs")) as it:
            it.common.pop("GLM47_HEAD_ADDRESS")
            it.start("single", "single")
            it.ready("single")
            runner = it.runners["single"]
            time.sleep(5)
            rows = [("idle", share(runner, given.seconds))]
            open_page = page(runner)
            rows.append(("idle, with the page open", share(runner, given.seconds)))
            flood = Flood(runner.status_of("aggregated")["pid"])
            both = share(runner, given.seconds)
            if open_page.sock is not None:
                open_page.sock.close()
            open_page.close()
            time.sleep(2)
            before, began = flood.lines, time.monotonic()
            rows.append((f"{RATE:,} lines a second, into a log file too", share(runner, given.seconds)))
            rate = (flood.lines - before) / (time.monotonic() - began)
            rows.append(("the same, with the page open", both))
            flood.close()
            lost = runner.status_of("aggregated")["dropped_lines"]
    print(f"{rate:,.0f} lines a second, {lost} lost\n\n| | share of a processor |\n|---|---|")
    for what, part in rows:
        print(f"| {what} | {part:.2%} |")


if __name__ == "__main__":
    main()
