"""An engine that goes on although a process of its own is dead. The engines here are stand-ins: see
tests/support/standin_engine.py."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from entrypoint.commands.demo.model import make_demo_model
from entrypoint.plan.roles.sglang import VITAL
from entrypoint.plan.types import Drain, HttpProbe
from entrypoint.supervise import process_tree
from entrypoint.supervise.lifecycle.actions import Action, Signal, Spawn
from entrypoint.supervise.lifecycle.actions import Drain as StartDrain
from entrypoint.supervise.lifecycle.director import Director
from entrypoint.supervise.lifecycle.states import State
from entrypoint.supervise.lifecycle.verdicts import Clues, Dead, Verdict, lost
from entrypoint.supervise.status import report
from entrypoint.supervise.watchdog.vital import ALL, LOOKS, SURE, SUSPECTS, Tree
from tests.support.plans import plan, process, server
from tests.support.runner import ROOT, Runner, alive, free_port, until
from tests.support.stack import free_ports

ENGINE = (sys.executable, "-m", "tests.support.standin_engine")
SCHEDULER, DETOKENIZER = "sglang::scheduler_TP0", "sglang::detokenizer"
CONTROLLER = "sglang::data_parallel_controller"
UNDER_CONTROLLER = "sglang::scheduler_DP1_TP1"
WHOLE = (SCHEDULER, DETOKENIZER, f"{CONTROLLER}/{UNDER_CONTROLLER}")
HELPERS = ("ninja", "nvcc", "ptxas", "cicc", "cc1plus", "python3", "pt_main_thread", "sglang::other")
"""Names of compilers, of multiprocessing's own processes, and a title that nobody counts on."""


class Engine(Runner):
    """A stand-in engine that runs under no runner."""

    def __init__(self, *arguments: str) -> None:
        super().__init__([*ENGINE, *arguments])
        titles = [title for word in arguments if not word.startswith("-") for title in word.split("/")]
        self.pids = {t: int(self.wait_for_match(rf"^{re.escape(t)} pid \d+$").split()[-1]) for t in titles}
        self.tree = Tree(self.process.pid, VITAL)

    def kill(self, title: str, signum: int = signal.SIGKILL) -> None:
        """Send `signum` to a process, and wait until it is dead."""
        os.kill(self.pids[title], signum)
        until(lambda: not alive(self.pids[title]), f"{title} is dead")

    def looks(self, times: int = LOOKS) -> list[Dead | None]:
        """What that many looks find."""
        found = []
        for _ in range(times):
            self.tree.find()
            found.append(self.tree.dead())
        return found


@pytest.fixture
def engine() -> Iterator[Callable[..., Engine]]:
    with ExitStack() as made:

        def make(*arguments: Any) -> Engine:
            found = Engine(*arguments)
            made.enter_context(found)
            return found

        yield make


# -- which process counts as dead


@pytest.mark.parametrize("title", [SCHEDULER, DETOKENIZER, CONTROLLER, UNDER_CONTROLLER])
def test_each_of_an_engines_own_processes_is_missed_and_named(
    engine: Callable[..., Engine], title: str
) -> None:
    standin = engine(*WHOLE)
    assert standin.looks() == [None] * LOOKS
    standin.kill(title)
    assert standin.looks() == [None] * (LOOKS - 1) + [Dead(title, standin.pids[title], 137)]


def test_two_looks_explain_its_engines_own_end(engine: Callable[..., Engine]) -> None:
    """SGLang 0.5.23 kills itself 6 s after a process of its own was killed, and does not say why."""
    standin = engine(*WHOLE)
    standin.looks(1)
    standin.kill(DETOKENIZER)
    standin.looks(1)
    assert standin.tree.missed(SUSPECTS) is None
    standin.looks(1)
    assert standin.tree.missed(SUSPECTS) == Dead(DETOKENIZER, standin.pids[DETOKENIZER], 137)


def test_the_reason_of_an_end_names_the_process_that_was_dead_before() -> None:
    dead = Dead(DETOKENIZER, 12, 137)
    assert lost("decode", 137, Clues(dead=dead)) == Verdict(
        137,
        "decode ended: killed by SIGKILL (137): its process sglang::detokenizer (pid 12) was dead before: "
        "killed by SIGKILL (137)",
    )
    hinted = lost("decode", 137, Clues(" (CUDA out of memory)", dead=Dead(SCHEDULER, 12, None)))
    assert hinted.reason.endswith("was dead before: how it ended is not known (CUDA out of memory)")


@pytest.mark.parametrize(
    ("signum", "code"),
    [(signal.SIGABRT, 134), (signal.SIGSEGV, 139), (signal.SIGKILL, 137), (signal.SIGUSR1, 0)],
)
def test_the_zombie_tells_how_it_ended(engine: Callable[..., Engine], signum: int, code: int) -> None:
    standin = engine(SCHEDULER)
    standin.looks(1)
    standin.kill(SCHEDULER, signum)
    dead = standin.looks()[-1]
    assert dead is not None and dead.code == code


def test_one_that_was_never_seen_alive_is_missed_too(engine: Callable[..., Engine]) -> None:
    """A zombie has no command line any more: the plan's title stands for it."""
    standin = engine(SCHEDULER)
    standin.kill(SCHEDULER, signal.SIGABRT)
    assert standin.looks()[-1] == Dead("sglang::scheduler", standin.pids[SCHEDULER], 134)


def test_one_that_its_parent_reaped_is_missed_too(engine: Callable[..., Engine]) -> None:
    """A follower of Dynamo 0.7.0 waits for its schedulers one after another."""
    standin = engine("--reap", SCHEDULER, DETOKENIZER)
    standin.looks(1)
    standin.kill(SCHEDULER)
    standin.wait_for("terminated with -9")
    assert standin.looks()[-1] == Dead(SCHEDULER, standin.pids[SCHEDULER], None)


def test_of_several_the_one_that_tells_most_is_named(engine: Callable[..., Engine]) -> None:
    """A controller's schedulers die with it, and are reaped by whoever adopts them."""
    standin = engine(DETOKENIZER, f"{CONTROLLER}/{UNDER_CONTROLLER}")
    standin.looks(1)
    standin.kill(DETOKENIZER, signal.SIGUSR1)
    standin.kill(CONTROLLER, signal.SIGABRT)
    until(lambda: not alive(standin.pids[UNDER_CONTROLLER]), "the scheduler went with it")
    assert standin.looks()[-1] == Dead(CONTROLLER, standin.pids[CONTROLLER], 134)


def test_helpers_come_and_go(engine: Callable[..., Engine]) -> None:
    standin = engine(SCHEDULER, *HELPERS)
    standin.looks(1)
    for name in HELPERS:
        standin.kill(name, signal.SIGABRT)
    assert standin.looks(3 * LOOKS) == [None] * (3 * LOOKS)
    standin.kill(SCHEDULER)
    assert standin.looks()[-1] is not None


def test_a_copy_that_a_process_forks_for_a_task_is_a_helper(engine: Callable[..., Engine]) -> None:
    """It has its parent's title until it gets another one."""
    standin = engine(SCHEDULER, f"{CONTROLLER}/{UNDER_CONTROLLER}")
    for title in (SCHEDULER, CONTROLLER, UNDER_CONTROLLER):
        os.kill(standin.pids[title], signal.SIGUSR2)
        copy = int(standin.wait_for(f"copy of {title} pid").split()[-1])
        stat = process_tree.read_stat(copy)
        assert stat is not None and stat.dead and stat.comm == title[:15]
    assert standin.looks(3 * LOOKS) == [None] * (3 * LOOKS)


def test_a_main_process_that_is_dead_itself_is_not_the_lookouts_concern(
    engine: Callable[..., Engine],
) -> None:
    standin = engine(SCHEDULER)
    standin.looks(1)
    standin.process.kill()
    until(lambda: not alive(standin.process.pid) and not alive(standin.pids[SCHEDULER]), "both are dead")
    assert standin.looks(2 * LOOKS) == [None] * (2 * LOOKS)


# -- what becomes of it


def running(*processes: Any, **fields: Any) -> Director:
    director = Director(plan(*processes, **fields), 0.0)
    actions: list[Action] = director.tick(0.0)
    for pid, action in enumerate(actions, 100):
        if isinstance(action, Spawn):
            director.spawned(action.name, pid, 0.0)
            director.health(action.name, True, "", 0.0)
    assert director.ready
    return director


@pytest.mark.parametrize(
    ("code", "ends_with", "words"),
    [
        (134, 134, "killed by SIGABRT (134)"),
        (7, 7, "exit code 7"),
        (0, 1, "exit code 0"),
        (None, 1, "how it ended is not known"),
    ],
)
def test_the_dead_processs_code_is_the_containers(code: int | None, ends_with: int, words: str) -> None:
    d = running(process("decode"))
    d.hollow("decode", Dead(SCHEDULER, 12, code), 1.0, Clues(" (a hint)"))
    assert d.verdict is not None and d.verdict.code == ends_with
    assert d.verdict.reason == (
        f"decode cannot go on: its process {SCHEDULER} (pid 12) is dead: {words} (a hint)"
    )
    status = report.status(d, 1.0, {}, {})
    assert status["reason"] == status["processes"][0]["why"] == d.verdict.reason
    assert report.live_probe(status, 0.0)[0] is False


def test_it_is_stopped_at_once_while_others_drain() -> None:
    """Its answers will not come: nothing waits for them, and a frontend's clients learn it at once."""
    drain = Drain("http://127.0.0.1:1/", "in_flight", 1.0, 5.0)
    engine, frontend = process("decode", drain=drain, grace=8.0), server("frontend", drain=drain)
    d = running(engine, frontend, stop_timeout=20.0)
    actions = d.hollow("decode", Dead(SCHEDULER, 12, 134), 1.0)
    assert [a.name for a in actions if isinstance(a, Signal)] == ["decode"]
    assert [a.name for a in actions if isinstance(a, StartDrain)] == ["frontend"]
    assert d.procs["decode"].kill_at == 1.0 + 5.0
    d.exited("decode", 0, 2.0)
    assert d.verdict is not None and d.verdict.code == 134


def test_it_does_not_wait_for_what_needs_it() -> None:
    d = Director(plan(process("decode"), server("frontend", needs=("decode",))), 0.0)
    d.tick(0.0)
    d.spawned("decode", 100, 0.0)
    d.health("decode", True, "", 0.0)
    d.spawned("frontend", 101, 0.0)
    actions = d.hollow("decode", Dead(SCHEDULER, 12, 134), 1.0)
    assert {a.name for a in actions if isinstance(a, Signal)} == {"decode", "frontend"}


def test_in_a_stop_and_after_the_engines_own_end_it_means_nothing() -> None:
    d = running(process("decode"))
    d.stop("asked to stop", 1.0)
    assert d.hollow("decode", Dead(SCHEDULER, 12, 137), 2.0) == []
    assert d.verdict is not None and d.verdict.code == 0
    d = running(process("decode"))
    d.exited("decode", 3, 1.0)
    assert d.hollow("decode", Dead(SCHEDULER, 12, 137), 2.0) == []
    assert d.verdict is not None and d.verdict.code == 3
    assert d.procs["decode"].state is State.LEFTOVERS


# -- with a runner


def decode(*arguments: str, **fields: Any) -> Any:
    return process("decode", argv=(*ENGINE, *arguments), cwd=str(ROOT), vital=VITAL, **fields)


def pid_of(runner: Runner, title: str) -> int:
    return int(runner.wait_for(f"decode | {title} pid").split()[-1])


@pytest.mark.parametrize("loaded", [True, False], ids=["ready", "loading"])
def test_a_dead_scheduler_ends_the_container(tmp_path: Path, loaded: bool) -> None:
    """At the real pace."""
    log = tmp_path / "termination-log"
    port = free_port()
    ready = HttpProbe(f"http://127.0.0.1:{port if loaded else 1}/")
    spec = decode("--linger", "2", "--port", str(port), *WHOLE, ready=ready)
    with Runner.of_plan(plan(spec, termination_log=str(log)), tmp_path) as runner:
        pid = pid_of(runner, UNDER_CONTROLLER)
        if loaded:
            runner.wait_for("| ready after")
        os.kill(pid, signal.SIGABRT)
        # Its whole title is known only if it was seen alive.
        reason = rf"decode cannot go on: its process sglang::scheduler\S* \(pid {pid}\) is dead: "
        reason += r"killed by SIGABRT \(134\)$"
        runner.wait_for_match(r"runner +\| stopping: " + reason, 60)
        until(lambda: runner.get("/livez")[0] == 503, "not live")
        assert re.search(reason, runner.get("/livez")[1]["reason"])
        assert re.search(reason, runner.status_of("decode")["why"])
        assert runner.wait() == 134
    assert any(line.endswith("TERM seen") for line in runner.lines)
    assert re.search(reason, runner.lines[-1]) and log.read_text().strip() in runner.lines[-1]


def test_helpers_and_a_slow_normal_stop_end_nothing(tmp_path: Path) -> None:
    """The engine kills its own processes and takes a second to leave, a hundred looks long."""
    looks = tmp_path / "looks"
    spec = decode("--linger", "1", *WHOLE, *HELPERS)
    with Runner.of_plan(plan(spec), tmp_path, env={"TEST_LOOKS": str(looks)}) as runner:
        runner.wait_for("| ready after")
        pid_of(runner, SCHEDULER)
        for title in HELPERS:
            os.kill(pid_of(runner, title), signal.SIGKILL)
        before = looks.stat().st_size
        until(lambda: looks.stat().st_size > before + 3 * LOOKS, "looks at the dead helpers")
        assert runner.get("/readyz")[0] == 200
        runner.signal(signal.SIGTERM)
        assert runner.wait() == 0
    assert b"!" in looks.read_bytes(), "nobody looked while the engine was leaving"
    assert runner.lines[-1] == "runner | asked to stop by SIGTERM"


def test_a_quick_lookout_sees_the_same_engines_scheduler_die(tmp_path: Path) -> None:
    """What the test before this one would have seen, had a helper counted."""
    spec = decode(*WHOLE, *HELPERS)
    with Runner.of_plan(plan(spec), tmp_path, env={"TEST_LOOKS": str(tmp_path / "looks")}) as runner:
        os.kill(pid_of(runner, DETOKENIZER), signal.SIGKILL)
        assert runner.wait() == 137
    assert "sglang::detokenizer" in runner.lines[-1]


def standin_python(directory: Path, *titles: str) -> Path:
    """An interpreter that has the image's releases, and runs the stand-in when it is asked for an engine."""
    for distribution in ("ai_dynamo-0.8.1", "sglang-0.5.6.post2"):
        (directory / "lib" / "python3.12" / "site-packages" / f"{distribution}.dist-info").mkdir(parents=True)
    python = directory / "bin" / "python"
    python.parent.mkdir()
    standin = shlex.join([*ENGINE, "--port"]) + ' "$DYN_SYSTEM_PORT" ' + shlex.join(titles)
    python.write_text(f'#!/bin/sh\n[ "$2" = dynamo.sglang ] || exit 3\nexec {standin}\n')
    python.chmod(0o755)
    return python


ABORTED = {134: "killed by SIGABRT (134)"}


@pytest.mark.parametrize(
    ("options", "ends"),
    # A look may come in the moment before its parent reaps it: then its end is known all the same.
    [([], ABORTED), (["--reap"], {1: "how it ended is not known"} | ABORTED)],
    ids=["left as a zombie", "reaped"],
)
def test_run_ends_with_a_dead_schedulers_code(
    tmp_path: Path, options: list[str], ends: dict[int, str]
) -> None:
    """From the environment on: only GLM47_PYTHON is a stand-in, and the pace."""
    looks = tmp_path / "looks"
    settings = {
        **free_ports(), "GLM47_RUN_DIR": str(tmp_path / "run"),
        "GLM47_TERMINATION_LOG": str(tmp_path / "run.reason"), "TEST_LOOKS": str(looks),
        "ROLE": "aggregated", "GLM47_ENGINE": "sglang", "GLM47_QUANTIZATION": "none",
        "GLM47_MODELOPT_PATCH": "off", "GLM47_GPUS_PER_NODE": "1", "GLM47_DISCOVERY": "file",
        "DYN_FILE_KV": str(tmp_path / "store"),
        "GLM47_MODEL_PATH": str(make_demo_model(tmp_path / "model")),
        "GLM47_PYTHON": str(standin_python(tmp_path / "engine", *options, SCHEDULER, DETOKENIZER)),
    }  # fmt: skip
    command = [sys.executable, "-m", "tests.support.run_plan", "run"]
    with Runner(command, env=settings, health_port=int(settings["GLM47_HEALTH_PORT"])) as runner:
        runner.wait_for("runner | ready after")
        pid = int(runner.wait_for(f"{SCHEDULER} pid").split()[-1])
        # It must have been seen alive for its whole title, and for its end to be noticed without a zombie:
        # of so many looks one at least was for new processes.
        before = looks.stat().st_size
        until(lambda: looks.stat().st_size > before + SURE + ALL, "the lookout has looked at it")
        os.kill(pid, signal.SIGABRT)
        code = runner.wait(60)
        assert code in ends, runner.text()
    reason = f"aggregated cannot go on: its process {SCHEDULER} (pid {pid}) is dead: {ends[code]}"
    assert runner.lines[-1].endswith(f"| {reason}")
    assert (tmp_path / "run.reason").read_text() == f"{reason}\n"
