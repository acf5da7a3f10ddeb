"""Processes that tell where they stand themselves, where nobody may read their memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from entrypoint.plan.types import Plan
from entrypoint.prepare.stack_hook import hook
from entrypoint.supervise import process_tree
from entrypoint.supervise.watchdog import asked
from entrypoint.supervise.watchdog.stacks import collect
from tests.support.no_ptrace import KEEP_OUT, forbid
from tests.support.plans import plan, process
from tests.support.runner import ROOT, until

CHILD = """
import ctypes, multiprocessing, os, sys, threading, time
def waits():
    threading.Event().wait()
def spins():
    while True: pass
def waits_in_native_code():
    ctypes.CDLL(None).sleep(1000)
def holds_the_lock():
    ctypes.PyDLL(None).sleep(1000)
def spins_with_threads():
    for _ in range(5):
        threading.Thread(target=makes_threads, daemon=True).start()
    makes_threads()
def deep(n):
    return n and deep(n - 1)
def makes_threads():
    while True:
        deep(30)
        thread = threading.Thread(target=deep, args=(20,))
        thread.start()
        thread.join()
def child(method):
    other = multiprocessing.get_context(method).Process(target=waits)
    other.start()
    waits()
if __name__ == "__main__":
    print("up", flush=True)
    globals()[sys.argv[1]](*sys.argv[2:])
"""


@pytest.fixture
def hooked(tmp_path: Path) -> Plan:
    spec = process("decode", argv=(sys.executable, "-m", "dynamo.sglang"))
    made = plan(spec, run_dir=str(tmp_path / "run"))
    return hook(made, {"PYTHONPATH": str(tmp_path / "user")}, os.getpid())


@pytest.fixture
def started(hooked: Plan, tmp_path: Path) -> Iterator[Any]:
    """Starts a child with the hook: its process, once it does what is wanted."""
    (tmp_path / "engine.py").write_text(CHILD)
    running = []

    def start(*what: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(tmp_path / "engine.py"), *what]
        env = {**os.environ, **hooked.process("decode").env}
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, env=env, start_new_session=True))
        out = running[-1].stdout
        assert out is not None and out.readline() == b"up\n"
        return running[-1]

    yield start
    for each in running:
        os.killpg(each.pid, signal.SIGKILL)
        each.wait()


def place(hooked: Plan) -> Path:
    return Path(hooked.run_dir) / "hook"


def main_frames(threads: list[dict[str, Any]]) -> list[str]:
    (main,) = (t["frames"] for t in threads if t["thread_name"] == "MainThread")
    return [frame["name"] for frame in main]


@pytest.mark.parametrize(
    ("what", "inner", "how"),
    [
        ("waits", "Condition.wait", "it told them itself"),
        ("spins", "spins", "it told them itself"),
        ("waits_in_native_code", "waits_in_native_code", "it told them itself"),
        ("holds_the_lock", "holds_the_lock", "it has not let its own threads run for 2 s"),
    ],
)
def test_a_process_tells_its_frames_wherever_it_is(
    hooked: Plan, started: Any, what: str, inner: str, how: str
) -> None:
    pid = started(what).pid
    found: list[str] = []

    def there() -> bool:
        nonlocal found
        threads, told = asked.ask(pid, place(hooked))
        found = main_frames(threads) if threads else []
        return bool(found) and found[0].rpartition(".")[2] == inner.rpartition(".")[2] and told == how

    until(there, "it says where it stands")
    assert found[-1] == "<module>" and what in found


def test_asking_ends_nobody_who_is_busy(hooked: Plan, started: Any) -> None:
    """Signals that made a process write all its threads ended this one after 3 to 13 of them."""
    child = started("spins_with_threads")
    end = time.monotonic() + 5
    answers = 0
    while time.monotonic() < end:
        threads, _ = asked.ask(child.pid, place(hooked))
        answers += bool(threads)
    assert child.poll() is None and answers > 20, answers


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_children_can_be_asked_too(hooked: Plan, started: Any, method: str) -> None:
    parent = started("child", method)

    def below(pid: int) -> list[int]:
        found = process_tree.children(pid)
        return [*found, *(p for each in found for p in below(each))]

    def told() -> bool:
        answers = [asked.ask(pid, place(hooked))[0] for pid in below(parent.pid)]
        return any("waits" in main_frames(each) for each in answers if each)

    until(told, "a child tells that it waits")


def test_who_has_no_hook_or_another_handler_is_left_alone(hooked: Plan, tmp_path: Path) -> None:
    other = subprocess.Popen(["sleep", "100"])
    try:
        assert asked.ask(other.pid, place(hooked)) == ([], "it cannot be asked itself")
        # What an earlier process of that id has left.
        os.mkfifo(place(hooked) / f"{other.pid}.pipe")
        (place(hooked) / f"{other.pid}.frames").touch()
        assert asked.ask(other.pid, place(hooked)) == ([], "it cannot be asked itself")
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_look_where_nobody_may_look(hooked: Plan, started: Any, tmp_path: Path) -> None:
    """py-spy fails as it does under Yama; the processes are named with their stacks all the same."""
    (tmp_path / "engine.py").write_text(KEEP_OUT + CHILD)
    waits = started("waits_in_native_code").pid
    stopped = started("waits").pid
    os.kill(stopped, signal.SIGSTOP)
    out = tmp_path / "x.stacks"
    code = "import sys; from pathlib import Path; from entrypoint.supervise.watchdog.stacks import collect\n"
    code += "for pid in sys.argv[3:]: print(collect('decode', int(pid), Path(sys.argv[1] + pid), {},"
    code += " Path(sys.argv[2]))[0])"
    command = [sys.executable, "-c", code, str(out), str(place(hooked)), str(waits), str(stopped)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, preexec_fn=forbid, check=False)
    first, second = done.stdout.splitlines()
    assert "waits_in_native_code (engine.py:" in first, done
    text = Path(f"{out}{waits}").read_text()
    assert "Python stacks: py-spy: " in text and "; it told them itself" in text, text
    assert second == "is stopped by a signal"
    text = Path(f"{out}{stopped}").read_text()
    assert "no Python stacks: py-spy: " in text and "answers nothing until SIGCONT" in text


def test_from_outside_a_stopped_one_has_its_frames(hooked: Plan, started: Any, tmp_path: Path) -> None:
    """And the hook's own thread is not among them."""
    pid = started("waits").pid
    until(lambda: any("waits" in main_frames(t) for t in [asked.ask(pid, place(hooked))[0]] if t), "it waits")
    os.kill(pid, signal.SIGSTOP)
    (seen,) = collect("decode", pid, tmp_path / "x.stacks", {}, place(hooked))
    assert any("waits (engine.py:" in frame for frame in seen.frames), seen
    assert "sitecustomize" not in (tmp_path / "x.stacks").read_text()


def test_other_hooks_of_the_same_name_run_too(hooked: Plan, started: Any, tmp_path: Path) -> None:
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "sitecustomize.py").write_text("print('hidden', flush=True)\n")
    env = {**os.environ, **hooked.process("decode").env}
    done = subprocess.run(
        [sys.executable, "-c", "import sitecustomize; print(sitecustomize.__file__)"],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["hidden", str(tmp_path / "user" / "sitecustomize.py")]
    assert done.stderr == ""


def test_a_hook_that_can_write_nothing_lets_its_process_run(hooked: Plan) -> None:
    env = {**os.environ, **hooked.process("decode").env}
    directory = place(hooked)
    (directory / "runner").unlink()
    pipes = directory / "site" / "sitecustomize.py"
    pipes.write_text(pipes.read_text().replace("PLACE = os.path.dirname(HERE)", "PLACE = '/nowhere'"))
    done = subprocess.run(
        [sys.executable, "-c", "print('runs')"], env=env, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("runs\n", "")
