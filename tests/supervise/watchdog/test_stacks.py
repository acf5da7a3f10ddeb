"""Stacks of real processes: one that is stopped, one that waits, one that spins, one that is no Python."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from entrypoint.supervise.watchdog.stacks import ALL, collect
from tests.support.runner import until

CHILD = """
import sys, threading
def waits_for_ever():
    threading.Event().wait()
def spins_for_ever():
    while True: pass
print("up", flush=True)
{what}()
"""


def python(what: str) -> subprocess.Popen[bytes]:
    child = subprocess.Popen([sys.executable, "-c", CHILD.format(what=what)], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"up\n"
    return child


def test_each_process_has_its_place_with_its_stack_and_bounded(tmp_path: Path) -> None:
    file = tmp_path / "x.stacks"
    children = [python("waits_for_ever"), python("waits_for_ever"), python("spins_for_ever")]
    other = subprocess.Popen(["sleep", "100"])
    try:
        os.kill(children[0].pid, signal.SIGSTOP)
        state = Path(f"/proc/{children[0].pid}/stat")
        until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T", "it is stopped")
        began = time.monotonic()
        places = {place.pid: place for place in collect("engine", os.getpid(), file)}
        assert time.monotonic() - began < ALL + 5
        stopped, waits, spins = (places[child.pid] for child in children)
        assert str(stopped).startswith("is stopped by a signal: "), stopped
        assert any("waits_for_ever" in frame for frame in stopped.frames)
        assert any("waits_for_ever" in frame for frame in waits.frames) and waits.waits_in
        assert spins.frames[0].startswith("spins_for_ever (<string>:") and not spins.waits_in
        assert places[other.pid].frames == () and places[other.pid].waits_in
        text = file.read_text()
        assert "no Python stacks: py-spy: " in text and text.count("    waits_for_ever (<string>:") == 2
    finally:
        for child in (*children, other):
            child.kill()
            child.wait()


def test_a_process_that_is_gone_is_left_out(tmp_path: Path) -> None:
    child = python("waits_for_ever")
    child.kill()
    child.wait()
    assert collect("engine", child.pid, tmp_path / "x.stacks") == []
