"""Exit codes, fate and stop, with real small children, through the product's own path after `plan`."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from entrypoint.plan.types import HttpProbe, LoadedProbe, Plan
from tests.support.plans import plan, process, server
from tests.support.runner import ROOT, Runner, alive, free_port, until

KILLS = [s for s in signal.valid_signals() if s not in (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN)]
SILENT = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH, signal.SIGTTOU}
"""Signals that do not end a process by default (or only stop it)."""


def sh(script: str) -> tuple[str, ...]:
    return ("sh", "-c", script)


def py(script: str) -> tuple[str, ...]:
    return (sys.executable, "-c", script)


def codes_of(plans: list[Plan], tmp_path: Path) -> list[int]:
    file = tmp_path / "plans.pickle"
    file.write_bytes(pickle.dumps(plans))
    command = [sys.executable, "-m", "tests.support.run_plan", "--each", str(file)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, timeout=240, check=True)
    codes: list[int] = json.loads(done.stdout)
    return codes


def numbered(specs: list[tuple[str, ...]], tmp_path: Path) -> list[Plan]:
    ports = iter({free_port() for _ in range(len(specs) * 3)})
    return [
        plan(process(argv=argv), run_dir=str(tmp_path / f"r{i}"), health_port=next(ports))
        for i, argv in enumerate(specs)
    ]


def test_every_exit_code_of_a_critical_process_comes_through(tmp_path: Path) -> None:
    codes = codes_of(numbered([sh(f"exit {n}") for n in range(256)], tmp_path), tmp_path)
    assert codes == [1, *range(1, 256)]


def test_every_signal_that_ends_a_critical_process_gives_128_plus_n(tmp_path: Path) -> None:
    signals = [s for s in KILLS if s not in SILENT]
    assert len(signals) > 50
    script = "import os, resource, signal; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); "
    # The default action also where Python has a handler of its own, and for blocked ones none.
    kill = (
        "signal.signal({n}, signal.SIG_DFL) if {n} != 9 else None; os.kill(os.getpid(), {n}); signal.pause()"
    )
    codes = codes_of(numbered([py(script + kill.format(n=int(s))) for s in signals], tmp_path), tmp_path)
    assert codes == [128 + s for s in signals]


def test_the_last_line_and_the_termination_log_give_the_reason(tmp_path: Path) -> None:
    log = tmp_path / "termination-log"
    p = plan(process("decode", argv=sh("echo dying >&2; exit 9")), termination_log=str(log))
    with Runner.of_plan(p, tmp_path) as runner:
        assert runner.wait() == 9
    assert runner.lines[-1] == "runner | decode ended: exit code 9"
    assert "decode | dying" in runner.lines
    assert log.read_text() == "decode ended: exit code 9\n"


def test_leaving_with_0_unasked_is_1(tmp_path: Path) -> None:
    with Runner.of_plan(plan(process("decode", argv=("true",))), tmp_path) as runner:
        assert runner.wait() == 1
    assert runner.lines[-1] == "runner | decode left with 0 although nobody had asked it to"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP])
def test_asked_to_stop_it_stops_with_0(tmp_path: Path, signum: signal.Signals) -> None:
    with Runner.of_plan(plan(process("a"), server("b")), tmp_path) as runner:
        runner.wait_for("| ready after")
        runner.signal(signum)
        assert runner.wait() == 0
    assert runner.lines[-1] == f"runner | asked to stop by {signum.name}"


def test_signals_that_mean_nothing_are_survived(tmp_path: Path) -> None:
    stop = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGKILL, signal.SIGSTOP}
    faults = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGSYS}
    job = {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGTRAP}
    with Runner.of_plan(plan(process("a")), tmp_path) as runner:
        runner.wait_for("| ready after")
        for signum in signal.valid_signals() - stop - faults - job:
            runner.signal(signum)
        until(lambda: runner.get("/readyz")[0] == 200, "ready still")
        runner.wait_for("a: running, ready")  # SIGUSR1 was among them
        runner.signal(signal.SIGTERM)
        assert runner.wait() == 0


def test_children_inherit_no_ignored_or_blocked_signals(tmp_path: Path) -> None:
    # No shell in between: it blocks signals itself while it forks.
    look = ("grep", "-E", "SigBlk|SigIgn", "/proc/self/status")
    with Runner.of_plan(plan(process("a", argv=look)), tmp_path) as runner:
        blocked = runner.wait_for("SigBlk")
        ignored = runner.wait_for("SigIgn")
    # What this test itself was started with ignored is not the runner's doing.
    mine = int(Path("/proc/self/status").read_text().split("SigIgn:")[1].split()[0], 16)
    assert int(blocked.split()[-1], 16) == 0 and int(ignored.split()[-1], 16) & ~mine == 0


def test_a_child_that_ignores_term_is_killed_after_its_grace(tmp_path: Path) -> None:
    p = plan(process("a", argv=sh("trap '' TERM; echo up; while :; do sleep 0.05; done"), grace=0.5))
    with Runner.of_plan(p, tmp_path) as runner:
        runner.wait_for("a | up")
        runner.signal(signal.SIGTERM)
        assert runner.wait() == 137
    assert "did not leave in time" in runner.lines[-1]


def test_ctrl_c_twice_kills_at_once(tmp_path: Path) -> None:
    p = plan(process("a", argv=sh("trap '' TERM; echo up; while :; do sleep 0.05; done"), grace=500.0),
             stop_timeout=600.0)  # fmt: skip
    with Runner.of_plan(p, tmp_path) as runner:
        runner.wait_for("a | up")
        runner.signal(signal.SIGINT)
        runner.wait_for("stopping")
        runner.signal(signal.SIGINT)
        assert runner.wait() == 137


def test_the_stop_signal_of_the_plan_is_the_one_sent(tmp_path: Path) -> None:
    script = "trap 'echo got INT; exit 0' INT; echo up; while :; do sleep 0.05; done"
    with Runner.of_plan(plan(process("a", argv=sh(script), stop_signal="INT")), tmp_path) as runner:
        runner.wait_for("a | up")
        runner.signal(signal.SIGTERM)
        assert runner.wait() == 0
    assert "a      | got INT" in runner.lines


GRANDCHILD = (
    "import os, signal, subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session={session})\n"
    "{after}\n"
)
STUBBORN = (
    "import os, signal, time\n"
    "signal.signal(15, lambda *a: print('TERM seen', flush=True))\n"
    "print('grandchild', os.getpid(), flush=True)\n"
    "while True: time.sleep(1000)\n"
)


@pytest.mark.parametrize("session", [False, True], ids=["same group", "setsid orphan"])
@pytest.mark.parametrize("how", ["crash", "stop"])
def test_what_a_process_leaves_behind_goes_with_it(tmp_path: Path, session: bool, how: str) -> None:
    """The leader is gone while a grandchild lives, in its group or in a session of its own."""
    after = "time.sleep(1); sys.exit(5)" if how == "crash" else "signal.pause()"
    script = GRANDCHILD.format(child=STUBBORN, session=session, after=after)
    with Runner.of_plan(plan(process("a", argv=py(script))), tmp_path) as runner:
        pid = int(runner.wait_for("grandchild").split()[-1])
        if how == "stop":
            runner.wait_for("| ready after")
            runner.signal(signal.SIGTERM)
        assert runner.wait() == (5 if how == "crash" else 0)
        assert not alive(pid)
    assert any("TERM seen" in line for line in runner.lines), runner.text()


def test_a_runner_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    p = plan(process("engine"), server("etcd"), process("deaf", argv=sh("trap '' TERM; exec sleep 600")))
    with Runner.of_plan(p, tmp_path) as runner:
        runner.wait_for("| ready after")
        pids = [runner.status_of(name)["pid"] for name in ("engine", "etcd", "deaf")]
        assert all(map(alive, pids))
        runner.signal(signal.SIGKILL)
        runner.process.wait(5)
        until(lambda: not any(map(alive, pids)), "every process is gone", 5)


def test_an_orphan_without_environment_is_ended_too(tmp_path: Path) -> None:
    script = "setsid env -i sh -c 'echo orphan $$; exec sleep 1000' & sleep 0.5; exit 4"
    with Runner.of_plan(plan(process("a", argv=sh(script))), tmp_path) as runner:
        pid = int(runner.wait_for("orphan").split()[-1])
        assert runner.wait() == 4
        assert not alive(pid)


def test_a_storm_of_10000_zombies_is_reaped_and_delays_nothing(tmp_path: Path) -> None:
    """Each grandchild is orphaned to the runner and ends there."""
    script = (
        "import os\n"
        "for i in range(10000):\n"
        "    if os.fork() == 0:\n"
        "        if os.fork() == 0: os._exit(0)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
        "print('storm over', flush=True)\n"
        "import signal; signal.pause()\n"
    )
    with Runner.of_plan(plan(process("a", argv=py(script))), tmp_path) as runner:
        runner.wait_for("| ready after")
        answered = 0
        while not any("storm over" in line for line in runner.lines):
            assert runner.get("/livez")[0] == 200
            answered += 1
        until(lambda: not zombies(runner.process.pid), "no zombie left")
        runner.signal(signal.SIGTERM)
        assert runner.wait() == 0
    assert answered > 3


def zombies(parent: int) -> list[int]:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(pid) for pid in children if not alive(int(pid))]


@pytest.mark.parametrize("fault", ["not found", "not executable", "no such directory"])
def test_a_command_that_cannot_start_says_so(tmp_path: Path, fault: str) -> None:
    plain = tmp_path / "plain"
    plain.write_text("not a program")
    spec = {
        "not found": process(argv=("/nonexistent/etcd",)),
        "not executable": process(argv=(str(plain),)),
        "no such directory": process(argv=("true",), cwd="/nonexistent/dir"),
    }[fault]
    with Runner.of_plan(plan(spec), tmp_path) as runner:
        assert runner.wait() == (126 if fault == "not executable" else 127)
    assert "cannot start engine" in runner.lines[-1]


@pytest.mark.parametrize("phase", ["before its probe answers", "before its log says loaded", "ready"])
def test_a_crash_in_every_phase_of_the_start(tmp_path: Path, phase: str) -> None:
    ready = {
        "before its probe answers": HttpProbe("http://127.0.0.1:1/"),
        "before its log says loaded": LoadedProbe(),
    }
    spec = process("a", argv=sh("echo up; read x < fifo; exit 6"), cwd=str(tmp_path))
    if phase in ready:
        spec = process("a", argv=spec.argv, cwd=spec.cwd, ready=ready[phase])
    os.mkfifo(tmp_path / "fifo")
    with Runner.of_plan(plan(spec, process("b", needs=("a",))), tmp_path) as runner:
        runner.wait_for("a | up")
        if phase == "ready":
            runner.wait_for("| ready after")
        wanted = 200 if phase == "ready" else 503
        until(lambda: runner.get("/readyz")[0] == wanted, f"{wanted} from /readyz")
        (tmp_path / "fifo").write_text("go\n")
        assert runner.wait() == 6
    started = [line for line in runner.lines if "started with pid" in line]
    assert len(started) == (2 if phase == "ready" else 1)


@pytest.mark.parametrize("phase", ["waiting for a gate's need", "backoff", "ready", "stopping"])
def test_term_in_every_phase_ends_with_0(tmp_path: Path, phase: str) -> None:
    never = HttpProbe("http://127.0.0.1:1/")
    plans = {
        "waiting for a gate's need": plan(process("a", ready=never), process("b", needs=("a",))),
        "backoff": plan(server("s", argv=("false",)), process("a"), max_restarts=1000),
        "ready": plan(process("a")),
        "stopping": plan(
            process("a", argv=sh("trap 'sleep 0.5; exit 0' TERM; echo up; while :; do sleep 0.02; done"))
        ),
    }
    lines = {"waiting for a gate's need": "a started", "backoff": "is restarted in",
             "ready": "| ready after", "stopping": "a | up"}  # fmt: skip
    with Runner.of_plan(plans[phase], tmp_path) as runner:
        runner.wait_for(lines[phase])
        runner.signal(signal.SIGTERM)
        if phase == "stopping":
            runner.wait_for("stopping")
            runner.signal(signal.SIGTERM)
        assert runner.wait() == 0


def test_a_server_is_restarted_in_place_and_the_rest_keeps_running(tmp_path: Path) -> None:
    with Runner.of_plan(plan(server("s"), process("a")), tmp_path) as runner:
        runner.wait_for("| ready after")
        first, other = runner.status_of("s")["pid"], runner.status_of("a")["pid"]
        os.kill(first, signal.SIGKILL)
        until(lambda: runner.status_of("s")["pid"] not in (None, first), "a new pid")
        until(lambda: runner.get("/readyz")[0] == 200, "ready again")
        assert runner.status_of("a")["pid"] == other
        assert runner.status_of("s")["restarts"] == 1
        runner.signal(signal.SIGTERM)
        assert runner.wait() == 0


def test_a_server_that_keeps_failing_gives_up_with_its_code(tmp_path: Path) -> None:
    with Runner.of_plan(plan(server("s", argv=sh("exit 12")), max_restarts=1), tmp_path) as runner:
        assert runner.wait() == 12
    assert "after 1 restarts" in runner.lines[-1]
