"""Which engine is called hung, and which never is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.plan.types import HangWatch
from entrypoint.supervise.lifecycle.looks import Finding, Requests, Stuck
from entrypoint.supervise.watchdog.hang import INTERVAL, Detector, Look, Thread, doing_of
from entrypoint.supervise.watchdog.hang_looks import Engine as Watched
from entrypoint.supervise.watchdog.hang_looks import HangLookout, helpers, pause, read_thread
from tests.support.runner import until

LEADER, FOLLOWER, DETOKENIZER = "sglang::scheduler_TP0", "sglang::scheduler_TP1", "sglang::detokenizer"
MAIN = "decode"


class Engine:
    """What would be seen of an engine with two ranks. Each `look` is one interval later."""

    def __init__(self, waits_for_others: bool = False, served: bool = True) -> None:
        self.detector = Detector(waits_for_others)
        self.threads = [Thread(title, pid, "S", 0.0, 0.0, 0) for pid, title in enumerate(
            (MAIN, LEADER, FOLLOWER, DETOKENIZER), 10)]  # fmt: skip
        self.requests: Requests | None = Requests(0.0, 0.0, 0.0)
        self.helpers = self.batches = 0.0
        if served:
            self.requests = Requests(0.0, 1.0, 100.0)

    def does(self, title: str, what: str) -> None:
        """Process `title` does `what` from now on, for one interval."""
        index = next(i for i, thread in enumerate(self.threads) if thread.title == title)
        t = self.threads[index]
        state, user, system, waits, where = {
            "runs": ("R", 1.9, 0.05, 400, ""), "spins": ("R", 2.0, 0.0, 2, ""),
            "starves": ("R", 0.1, 0.0, 2, ""), "is interrupted": ("R", 1.9, 0.01, 3, ""),
            "still": ("S", 0.0, 0.0, 0, "futex_wait_queue"),
            "polls": ("S", 0.01, 0.0, 40, "hrtimer_nanosleep"),
        }[what]  # fmt: skip
        used = t.user + user, t.system + system
        self.threads[index] = Thread(title, t.pid, state, *used, t.waits + waits, where)

    def look(
        self, leader: str = "runs", follower: str = "runs", *, in_flight: float = 0, answers: float = 0,
        helps: float = 0, batches: int = 0, silent: bool = False, detokenizer: str = "still",
    ) -> Stuck | None:  # fmt: skip
        for title, what in ((LEADER, leader), (FOLLOWER, follower), (DETOKENIZER, detokenizer)):
            self.does(title, what)
        self.helpers += helps
        self.batches += batches
        told = self.requests
        if told is not None:
            begun = max(told.begun, told.begun - told.in_flight + in_flight)
            self.requests = told = Requests(in_flight, begun, told.answered + answers)
        look = Look(tuple(self.threads), None if silent else told, self.helpers, int(self.batches))
        return self.detector.look(look)

    def looks(self, times: int, **how: object) -> list[Stuck | None]:
        return [self.look(**how) for _ in range(times)]  # type: ignore[arg-type]


# -- what is accused, for how long, and by which name


@pytest.mark.parametrize("waits_for_others", [False, True])
@pytest.mark.parametrize(
    ("leader", "follower", "named", "words"),
    [
        ("still", "runs", LEADER, "waits in futex_wait_queue"),
        ("runs", "still", FOLLOWER, "waits in futex_wait_queue"),
        ("spins", "runs", LEADER, "spins"),
        ("runs", "spins", FOLLOWER, "spins"),
    ],
)
def test_a_rank_that_does_not_get_on_is_named(
    waits_for_others: bool, leader: str, follower: str, named: str, words: str
) -> None:
    engine = Engine(waits_for_others)
    engine.look(in_flight=1, answers=5)
    found = engine.looks(6, leader=leader, follower=follower, in_flight=1)
    assert [f.seconds for f in found if f] == [INTERVAL * n for n in range(1, 7)]
    last = found[-1]
    assert last is not None and last.title == named
    assert last.doing.startswith(f"{words} with 1 request without an answer")


def test_all_ranks_are_told_of() -> None:
    engine = Engine()
    engine.look(in_flight=2, answers=5)
    found = engine.looks(3, leader="still", follower="spins", in_flight=2)[-1]
    assert str(found) == (
        f"its process {LEADER} (pid 11) waits in futex_wait_queue with 2 requests without an answer "
        f"({FOLLOWER} spins), for 6 s"
    )


@pytest.mark.parametrize("title", [MAIN, LEADER, FOLLOWER, DETOKENIZER])
@pytest.mark.parametrize("served", [True, False], ids=["served", "never asked"])
def test_nothing_excuses_a_stopped_process(title: str, served: bool) -> None:
    """Not even that it is idle, compiles, or has never answered."""
    engine = Engine(waits_for_others=True, served=served)
    engine.look()
    index = [thread.title for thread in engine.threads].index(title)
    for count in range(1, 5):
        stopped = replace(engine.threads[index], state="T")
        threads = [*engine.threads[:index], stopped, *engine.threads[index + 1 :]]
        found = engine.detector.look(
            Look(tuple(threads), engine.requests, helpers=9.0 * count, batches=count)
        )
        assert found is not None and found.title == title and found.seconds == count * INTERVAL
        assert "stopped by a signal" in found.doing
    assert engine.look() is None


def test_where_ranks_run_and_nothing_comes_out_the_worker_is_stuck_all_the_same() -> None:
    """A detokenizer that sleeps, or a queue that is never served: only for who waits for nobody else."""
    engine = Engine()
    engine.look(in_flight=1, answers=5)
    found = engine.looks(5, in_flight=1)[-1]
    assert found is not None and found.seconds == 5 * INTERVAL and "runs with 1 request" in found.doing
    paired = Engine(waits_for_others=True)
    paired.look(in_flight=1, answers=5)
    assert paired.looks(30, in_flight=1) == [None] * 30


def test_a_page_that_does_not_answer_is_no_news() -> None:
    engine = Engine()
    engine.look(in_flight=1, answers=5)
    assert [f.seconds for f in engine.looks(3, leader="still", in_flight=1) if f] == [2, 4, 6]
    assert [f.seconds for f in engine.looks(4, leader="still", in_flight=1, silent=True) if f] == [6] * 4
    assert [f.seconds for f in engine.looks(2, leader="still", in_flight=1) if f] == [8, 10]
    fresh = Engine()
    assert fresh.looks(20, leader="still", in_flight=1, silent=True) == [None] * 20


def test_on_a_busy_machine_it_takes_longer_to_say_that_it_spins() -> None:
    """A clock tick in the kernel may fall on no look of several when it gets little time."""
    engine = Engine(waits_for_others=True)
    engine.look(in_flight=1, answers=5)
    found = engine.looks(12, leader="starves", in_flight=1)
    assert [f.seconds if f else 0 for f in found] == [0] * 9 + [20, 22, 24]
    assert engine.look(in_flight=1) is None


@pytest.mark.parametrize("waits_for_others", [False, True])
@pytest.mark.parametrize("looks", [3, 20])
def test_a_clock_tick_in_the_kernel_now_and_then_is_no_round(waits_for_others: bool, looks: int) -> None:
    """Interrupts are counted where they fall: the last look of a hang must not decide what it is called."""
    engine = Engine(waits_for_others)
    engine.look(in_flight=1, answers=5)
    found = engine.looks(looks, leader="is interrupted", in_flight=1)[-1]
    assert found is not None and found.seconds == looks * INTERVAL
    assert found.doing.startswith("spins with 1 request")
    found = engine.looks(looks, leader="starves", in_flight=1)[-1]
    assert found is not None and found.doing.startswith("spins with 1 request")


# -- what never is

INNOCENT = {
    "idle": {"in_flight": 0},
    "idle and asleep": {"in_flight": 0, "leader": "still", "follower": "still"},
    "answers": {"in_flight": 3, "answers": 4},
    "a long prompt": {"in_flight": 1, "batches": 1, "leader": "spins", "follower": "spins"},
    "compiles": {"in_flight": 1, "helps": 1.5, "leader": "still", "follower": "still"},
    "waits for another container's compiler": {"in_flight": 1, "leader": "polls", "follower": "still"},
}


@pytest.mark.parametrize("how", INNOCENT.values(), ids=INNOCENT.keys())
@pytest.mark.parametrize("waits_for_others", [False, True])
def test_the_innocent_are_left_alone(how: dict[str, object], waits_for_others: bool) -> None:
    engine = Engine(waits_for_others)
    engine.look(in_flight=1, answers=5)
    found = engine.looks(200, **how)
    assert max((f.seconds for f in found if f), default=0) <= 3 * INTERVAL


@pytest.mark.parametrize("what", ["runs", "spins", "still"])
def test_a_first_request_takes_as_long_as_it_takes(what: str) -> None:
    engine = Engine(served=False)
    assert engine.looks(200, leader=what, follower=what, in_flight=1) == [None] * 200
    engine.look(in_flight=0, answers=50)
    engine.look(in_flight=1)
    assert engine.look(leader=what, follower=what, in_flight=1) is not None


WAYS = st.sampled_from(["runs", "spins", "still", "polls"])
STEPS = st.fixed_dictionaries(
    {
        "leader": WAYS, "follower": WAYS,
        "in_flight": st.sampled_from([0, 1, 7]), "answers": st.sampled_from([0, 0, 9]),
        "helps": st.sampled_from([0.0, 0.0, 2.0]), "batches": st.sampled_from([0, 0, 1]),
        "silent": st.sampled_from([False, False, True]),
    }
)  # fmt: skip


@given(st.lists(STEPS, max_size=40), st.booleans())
def test_time_is_only_counted_while_nothing_excuses_it(steps: list[dict[str, object]], paired: bool) -> None:
    """Whatever happens: the seconds that are held against it are at most those since its last excuse."""
    engine = Engine(paired)
    since = 0
    for step in steps:
        found = engine.look(**step)  # type: ignore[arg-type]
        excused = (
            not step["in_flight"] or step["answers"] or step["helps"] or step["batches"]
            or "polls" in (step["leader"], step["follower"])
            or (paired and {step["leader"], step["follower"]} <= {"runs"})
        )  # fmt: skip
        since = 0 if excused and not step["silent"] else since + (not step["silent"])
        assert found is None or found.seconds <= since * INTERVAL


@given(st.lists(STEPS, max_size=20), st.booleans(), st.integers(2, 30))
def test_whatever_was_before_a_hang_is_found(
    steps: list[dict[str, object]], paired: bool, looks: int
) -> None:
    engine = Engine(paired)
    for step in steps:
        engine.look(**step)  # type: ignore[arg-type]
    engine.look(in_flight=1, answers=1)
    found = engine.looks(looks, leader="still", follower="spins", in_flight=1)[-1]
    assert found is not None and found.seconds == looks * INTERVAL


# -- looking at real processes

SPIN = "while True: pass"
WAIT = "import threading; threading.Event().wait()"
POLL = "import time\nwhile True: time.sleep(0.05)"
ROUNDS = "import select\nwhile True: select.select([], [], [], 0.001); sum(range(20000))"


@pytest.fixture
def child(request: pytest.FixtureRequest) -> Iterator[int]:
    command = [sys.executable, "-c", f"print('up', flush=True)\n{request.param}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as started:
        try:
            assert started.stdout is not None and started.stdout.readline() == b"up\n"
            yield started.pid
        finally:
            started.kill()


@pytest.mark.parametrize(
    ("child", "what", "where"),
    [(SPIN, "spins", ""), (WAIT, "still", "futex"), (POLL, "still", "nanosleep"), (ROUNDS, "runs", "")],
    indirect=["child"],
)
def test_what_a_process_does_is_seen(child: int, what: str, where: str) -> None:
    def seen() -> bool:
        was = read_thread(child, "child")
        time.sleep(INTERVAL)
        now = read_thread(child, "child")
        assert was is not None and now is not None
        return doing_of(was, now) == what and where in now.where

    until(seen, f"it {what}")


@pytest.mark.parametrize("limit", (2, 30))
def test_one_that_is_stopped_again_and_again_is_only_slow(limit: int) -> None:
    """Looks may meet it stopped each time, with what it did in between."""
    engine, found = Engine(), None
    for turn in range(40):
        engine.does(FOLLOWER, "starves" if turn < limit else "still")
        index = next(i for i, thread in enumerate(engine.threads) if thread.title == FOLLOWER)
        engine.threads[index] = replace(engine.threads[index], state="T")
        found = engine.detector.look(Look(tuple(engine.threads), engine.requests, 0.0))
        assert found is not None and found.title == FOLLOWER
        assert found.seconds == INTERVAL * max(1, turn - limit + 2), "since it has done nothing"
    assert found is not None and found.seconds > 10


@pytest.mark.parametrize("child", [WAIT], indirect=True)
def test_a_stopped_process_is_seen(child: int) -> None:
    os.kill(child, signal.SIGSTOP)
    until(lambda: (seen := read_thread(child, "")) is not None and seen.state == "T", "it is stopped")
    os.kill(child, signal.SIGCONT)
    until(lambda: (seen := read_thread(child, "")) is not None and seen.state == "S", "it goes on")


def test_the_work_of_helpers_counts_also_once_they_have_ended() -> None:
    work = "import os; [sum(range(10000)) for _ in range(2000)]"
    code = f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {work!r}]); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        try:
            known = {parent.pid: ""}
            until(lambda: helpers(parent.pid, known) > 0.1, "its child has worked")
            until(lambda: not list_children(parent.pid), "its child has ended")
            assert helpers(parent.pid, known) > 0.1
        finally:
            parent.kill()


def list_children(pid: int) -> list[int]:
    from entrypoint.supervise.process_tree import children

    return children(pid)


class Clock(threading.Event):
    """Waits for nothing; ends the lookout after three looks."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waits.append(timeout)
        return len(self.waits) > 3


def test_a_page_that_does_not_answer_makes_no_look_later() -> None:
    """Else the limit of 40 s is 70 for an engine whose main process is stopped: its page is one."""
    delay, clock, found = 0.2, Clock(), list[Finding]()

    def get(url: str, timeout: float) -> httpx.Response:
        time.sleep(delay)
        raise httpx.ReadTimeout(url)

    client = cast(httpx.Client, types.SimpleNamespace(get=get))
    lookout = HangLookout(lambda name, life, finding: found.append(finding), lambda: client)
    limits = HangWatch(10.0, 40.0, "http://127.0.0.1:1/metrics", "f", "b", "a", "")
    lookout._run(Watched("decode", 1, os.getpid(), (), limits, lambda: True, lambda: 0), clock)
    assert len(found) == 3
    assert clock.waits[0] == INTERVAL
    assert all(INTERVAL / 4 <= wait <= INTERVAL - delay for wait in clock.waits[1:])


def test_a_pause_of_the_whole_container_brings_no_look_at_once() -> None:
    assert pause(1000.0) == INTERVAL / 4
