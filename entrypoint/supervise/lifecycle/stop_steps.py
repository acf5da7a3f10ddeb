"""One turn of a stop: who is left to finish, who gets the stop signal, who is killed. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from entrypoint.errors import ExitCode
from entrypoint.plan.stop_budget import BROKEN_GRACE
from entrypoint.supervise.lifecycle.actions import Action, Drain, Kill, Say, Signal
from entrypoint.supervise.lifecycle.process import Proc
from entrypoint.supervise.lifecycle.states import State
from entrypoint.supervise.lifecycle.stop_ends import KILLED
from entrypoint.supervise.lifecycle.stopping import StopPlan
from entrypoint.supervise.lifecycle.verdicts import Verdict

KILL_AGAIN = 0.2
"""Seconds between two KILLs of what a process has left: who loses its parent by the first gets the second."""


def begin(procs: Mapping[str, Proc]) -> None:
    """Nothing is ready or restarted any more; what does not run has ended."""
    for proc in procs.values():
        proc.ready, proc.recycling = False, False
        if proc.alive:
            proc.why = "stopping"
        elif proc.state is not State.ENDED:
            proc.enter(State.ENDED)


def turn(
    procs: Mapping[str, Proc], stopping: StopPlan, verdict: Verdict | None, now: float
) -> tuple[list[Action], Verdict | None]:
    """What is due at `now`, and the verdict from then on."""
    stopping.turn(now)
    alive = {name for name, proc in procs.items() if proc.alive}
    actions: list[Action] = []
    for name, proc in procs.items():
        # What is broken answers nobody: whoever waits for its answers is better off without it.
        if proc.state is State.RUNNING and (proc.broken or stopping.may_stop(name, alive)):
            if proc.may_finish and not stopping.hurried:
                actions += _let_finish(proc, stopping, now)
            else:
                actions.append(signal_to_stop(proc, stopping, now))
        elif proc.state is State.DRAINING and now >= min(proc.drain_until or now, stopping.end):
            actions.append(Say(f"{name} {proc.still} when its time to drain is over"))
            actions.append(signal_to_stop(proc, stopping, now))
        elif proc.state in (State.LEFTOVERS, State.STOPPING) and proc.kill_at is not None and not proc.killed:
            proc.kill_at = min(proc.kill_at, stopping.latest_kill(name))
        killed, verdict = kill_if_due(proc, verdict, now)
        actions += killed
    return actions, verdict


def shorten(procs: Mapping[str, Proc], stopping: StopPlan, now: float) -> None:
    """The longer time that a stop had is over at `now`: whoever drains has what the plan gives it."""
    stopping.shorten(now)
    for name, proc in procs.items():
        if proc.state is State.DRAINING and proc.drain_until is not None:
            proc.drain_until = min(proc.drain_until, stopping.drain_until(name, now))


def _let_finish(proc: Proc, stopping: StopPlan, now: float) -> list[Action]:
    name = proc.spec.name
    proc.enter(State.DRAINING)
    proc.drain_until = stopping.drain_until(name, now)
    return [Drain(name)] if proc.spec.drain is not None else []


def signal_to_stop(proc: Proc, stopping: StopPlan, now: float) -> Action:
    """The stop signal, sent at `now` (monotonic seconds), and until when it is waited for."""
    proc.enter(State.STOPPING)
    proc.kill_at = stopping.kill_at(proc.spec.name, now)
    if proc.may_be_cut_off:
        proc.kill_at = min(proc.kill_at, now + (proc.spec.loading_grace or 0.0))
    if proc.broken:
        proc.kill_at = min(proc.kill_at, now + BROKEN_GRACE)
    return Signal(proc.spec.name, proc.spec.stop_signal)


def kill_if_due(proc: Proc, verdict: Verdict | None, now: float) -> tuple[list[Action], Verdict | None]:
    """The KILL that is due at `now` (monotonic seconds), and what it makes of a stop that was asked for."""
    if proc.kill_at is None or now < proc.kill_at or not proc.alive:
        return [], verdict
    name = proc.spec.name
    if proc.killed:
        if proc.state is not State.LEFTOVERS:
            return [], verdict
        # What still had a parent at the first KILL is an orphan now, and may be stopped or deaf to TERM.
        proc.kill_at = now + KILL_AGAIN
        return [Kill(name)], verdict
    proc.killed, proc.kill_at = True, now + KILL_AGAIN
    if proc.may_be_cut_off and proc.state is State.STOPPING:
        return [Say(f"{name} is still loading and is killed"), Kill(name)], verdict
    text = f"{name} did not leave in time and is killed"
    if verdict is not None and verdict.code == ExitCode.OK and proc.state is State.STOPPING:
        verdict = Verdict(KILLED, f"{verdict.reason}; {text}")
    return [Say(text), Kill(name)], verdict
