"""The table of transitions: it is the code's, the pages show it, and whatever happens keeps to it."""

from __future__ import annotations

import ast
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrypoint.plan.types import Criticality, Drain, HangWatch, HttpProbe, Process
from entrypoint.supervise.lifecycle import states
from entrypoint.supervise.lifecycle.actions import Action, Kill, Say, Signal, Spawn
from entrypoint.supervise.lifecycle.actions import Drain as StartDrain
from entrypoint.supervise.lifecycle.director import Director
from entrypoint.supervise.lifecycle.looks import Finding, Stuck
from entrypoint.supervise.lifecycle.process import ImpossibleError, Proc
from entrypoint.supervise.lifecycle.states import ALLOWED, TRANSITIONS, State
from entrypoint.supervise.lifecycle.verdicts import Dead
from tests.support.plans import plan, process
from tests.support.runner import ROOT

PROBE = HttpProbe("http://127.0.0.1:1/")
DRAIN = Drain("http://127.0.0.1:1/metrics", "in_flight", 0.0, 20.0)
HANG = HangWatch(5.0, 20.0, None, "", "", "", "")
BUDGET = 30.0

T = TypeVar("T")
Choose = Callable[[Sequence[T]], T]


def some_processes(choose: Choose[Any]) -> list[Process]:
    """One to four processes, each needing some of those before it."""
    made: list[Process] = []
    for number in range(choose((1, 2, 3, 4))):
        critical = choose((True, False))
        made.append(
            process(
                f"p{number}",
                ready=PROBE,
                grace=choose((0.5, 5.0, 100.0)),
                needs=tuple(p.name for p in made if choose((True, False, False))),
                criticality=Criticality.CRITICAL if critical else Criticality.RESTART,
                drain=choose((None, DRAIN)),
                hang=choose((None, HANG)) if critical else None,
                leader_hold=choose((None, None, 10.0)) if critical else None,
                loading_grace=choose((None, 1.0)),
                unlisted_timeout=None if critical else choose((None, 4.0)),
                start_timeout=choose((None, 50.0)),
            )
        )
    return made


class World:
    """Processes as the director's actions and chance make them; only what can happen does."""

    def __init__(self, choose: Choose[Any]) -> None:
        self.choose = choose
        most = choose((0, 1, 5))
        self.director = Director(plan(*some_processes(choose), stop_timeout=BUDGET, max_restarts=most), 0.0)
        self.now = 0.0
        self.main: set[str] = set()
        """Whose process itself lives."""
        self.group: set[str] = set()
        """Of whom anything lives."""
        self.draining: set[str] = set()
        self.stopped_at: float | None = None
        self.do(self.director.tick(0.0))

    def do(self, actions: list[Action]) -> None:
        """Carry out, as the daemon does."""
        if self.director.stopping is not None and self.stopped_at is None:
            self.stopped_at = self.now
        for action in actions:
            if isinstance(action, Spawn):
                self.spawn(action.name)
            elif isinstance(action, StartDrain):
                self.draining.add(action.name)
            elif isinstance(action, Kill):
                self.group.discard(action.name)
            else:
                assert isinstance(action, Say | Signal) or action.name in self.director.procs

    def spawn(self, name: str) -> None:
        if self.director.procs[name].state is not State.SPAWNING:
            return
        if self.choose((True, True, True, True, False)):
            self.main.add(name)
            self.group.add(name)
            self.do(self.director.spawned(name, 1, self.now))
        else:
            self.do(self.director.spawn_failed(name, 127, "no such file", self.now))

    def collect(self) -> None:
        """Whom a KILL has met ends, and whoever is gone altogether is seen to be."""
        for name in sorted(self.main - self.group):
            self.end(name, 137)
        for name in self.director.procs:
            if name not in self.main and name not in self.group:
                self.do(self.director.gone(name, self.now))

    def end(self, name: str, code: int) -> None:
        self.main.discard(name)
        self.draining.discard(name)
        self.do(self.director.exited(name, code, self.now))

    def step(self) -> None:
        """Something happens."""
        d, name = self.director, self.choose(sorted(self.director.procs))
        what = self.choose(("wait", "wait", "health", "health", "end", "gone", "look", "drained", "stop"))
        if what == "wait":
            due = d.next_deadline()
            later = (
                self.now + 1.0 if due is None else min(due, self.now + 1.0)
            )  # the loop never sleeps longer
            self.now = max(self.now, self.choose((later, later if due is None else due)))
            self.do(d.tick(self.now))
        elif what == "health" and name in self.main:
            ready, unlisted = self.choose(((True, False), (True, False), (False, False), (False, True)))
            self.do(d.health(name, ready, "why", self.now, unlisted))
        elif what == "end" and name in self.main:
            self.end(name, self.choose((0, 1, 137)))
        elif what == "gone" and name not in self.main:
            self.group.discard(name)
        elif what == "look" and name in self.main:
            dead = self.choose((True, False))
            stuck = Stuck("scheduler", 9, "does nothing", self.choose((6.0, 30.0)))
            found = Finding(stuck, None, True)
            self.do(
                d.hollow(name, Dead("scheduler", 9, 139), self.now)
                if dead
                else d.looked_at(name, found, self.now)
            )
        elif what == "drained" and name in self.draining:
            self.draining.discard(name)
            self.do(d.drained(name, self.now))
        elif what == "stop" and self.choose((True, False, False)):
            self.do(self.choose((d.kill_all, lambda now: d.stop("asked", now)))(self.now))
        self.collect()

    def stop_while_everything_ignores_it(self) -> float:
        """From the stop on, only a KILL ends anything: seconds until nothing is left."""
        self.do(self.director.stop("asked", self.now))
        assert self.stopped_at is not None
        for _ in range(200):
            self.collect()
            if self.director.finished:
                return self.now - self.stopped_at
            due = self.director.next_deadline()
            assert due is not None, "nothing is waited for, and something lives"
            self.now = max(self.now, due)
            self.do(self.director.tick(self.now))
        raise AssertionError("the stop does not end")


@contextmanager
def recorded() -> Iterator[set[tuple[State, State]]]:
    """The transitions that are made."""
    seen: set[tuple[State, State]] = set()
    enter = Proc.enter

    def recording(proc: Proc, state: State) -> None:
        before = proc.state
        enter(proc, state)
        seen.add((before, proc.state))

    Proc.enter = recording  # type: ignore[method-assign, assignment]
    try:
        yield seen
    finally:
        Proc.enter = enter  # type: ignore[method-assign]


def live(choose: Choose[Any], steps: int) -> set[tuple[State, State]]:
    """One life of random events, and its end: the transitions that it made."""
    with recorded() as seen:
        world = World(choose)
        for _ in range(steps):
            if world.director.finished:
                break
            world.step()
        took = world.stop_while_everything_ignores_it()
        assert took <= BUDGET
        assert {proc.state for proc in world.director.procs.values()} == {State.ENDED}
        assert world.director.verdict is not None
    return seen


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_happens_keeps_to_the_table_and_every_stop_ends(data: st.DataObject) -> None:
    steps = data.draw(st.integers(0, 30))
    assert live(lambda things: data.draw(st.sampled_from(things)), steps) <= ALLOWED


def test_every_transition_of_the_table_is_made() -> None:
    dice = random.Random(7)
    made: set[tuple[State, State]] = set()
    for _ in range(1500):
        made |= live(dice.choice, 40)
    assert made == ALLOWED


@pytest.mark.parametrize("source", State)
@pytest.mark.parametrize("target", State)
def test_there_is_no_other_way(source: State, target: State) -> None:
    proc = Proc(process())
    proc._state = source
    if (source, target) in ALLOWED:
        proc.enter(target)
        assert proc.state is target
        return
    with pytest.raises(ImpossibleError, match=f"from {source.value} to {target.value}"):
        proc.enter(target)
    assert proc.state is source


def test_the_table_says_each_transition_once_and_leads_everywhere() -> None:
    assert len(TRANSITIONS) == len(ALLOWED)
    assert {t.target for t in TRANSITIONS} == set(State) - {State.WAITING}
    assert {t.source for t in TRANSITIONS} == set(State) - {State.ENDED}


def test_the_module_begins_with_the_table() -> None:
    lines = [
        f"    {state.value:9} -> {', '.join(t.target.value for t in TRANSITIONS if t.source is state)}"
        for state in State
        if state is not State.ENDED
    ]
    assert states.__doc__ is not None
    shown = [line.rstrip() for line in states.__doc__.splitlines() if " -> " in line]
    assert sorted(shown) == sorted(lines)


def test_the_page_shows_the_table() -> None:
    page = ROOT / "docs" / "states.md"
    before, _, rest = page.read_text().partition("```mermaid\n")
    shown, _, after = rest.partition("\n```")
    if os.environ.get("UPDATE_GOLDEN"):
        page.write_text(f"{before}```mermaid\n{states.mermaid()}\n```{after}")
        return
    assert shown == states.mermaid(), "UPDATE_GOLDEN=1 writes it"
    described = {line.split("`")[1] for line in after.splitlines() if line.startswith("| `")}
    assert described == {state.value for state in State}


def written(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, name) of every attribute that is assigned to an object other than `self`."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Store):
            continue
        if not isinstance(node.value, ast.Name) or node.value.id != "self":
            yield node.lineno, node.attr


def test_only_this_folder_writes_what_is_known_of_a_process() -> None:
    known = {f.name for f in fields(Proc)} | {"state"}
    folder = ROOT / "entrypoint" / "supervise"
    found = []
    for path in sorted(folder.rglob("*.py")):
        if path.parent.name == "lifecycle":
            continue
        tree = ast.parse(path.read_text())
        found += [f"{relative(path)}:{line} writes .{name}" for line, name in written(tree) if name in known]
        found += [
            f"{relative(path)}:{node.lineno} moves a process"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "enter"
        ]
    assert found == []


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))
