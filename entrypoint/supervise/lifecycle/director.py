"""Decides what the supervisor does next. Pure: events and the time go in, actions come out.

`states` has the table of what can become of a process; `restarts` and `stop_steps` are its two longer parts.

Times are seconds of a monotonic clock. Nothing here touches a process, a file or a socket, so every
rule of fate, restart and stop can be tested without one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from entrypoint.errors import ExitCode
from entrypoint.plan.stop_budget import LATE_STOP, LEFTOVER_GRACE
from entrypoint.plan.types import Criticality, Plan
from entrypoint.supervise.lifecycle import deadlines, restarts, silence, stop_ends, stop_steps
from entrypoint.supervise.lifecycle.actions import Action, Kill, Say, Signal, Spawn, Unlist
from entrypoint.supervise.lifecycle.process import GateState, Proc
from entrypoint.supervise.lifecycle.states import State
from entrypoint.supervise.lifecycle.stopping import StopPlan
from entrypoint.supervise.lifecycle.verdicts import (
    NO_CLUES,
    Clues,
    Dead,
    Verdict,
    broken,
    describe_code,
    hung,
    lost,
)

if TYPE_CHECKING:
    from entrypoint.supervise.lifecycle.looks import Finding
    from entrypoint.supervise.lifecycle.peer_watch import PeerWatch


@dataclass
class Director:
    """The state of one run, and the rules."""

    plan: Plan
    now: float
    jitter: Callable[[], float] = lambda: 1.0
    """Factor 0.5..1 on every backoff delay."""
    procs: dict[str, Proc] = field(init=False)
    gates: dict[str, GateState] = field(init=False)
    started_at: float = field(init=False)
    verdict: Verdict | None = None
    """Set by the first cause of the end; what happens afterwards does not change it, a KILL excepted."""
    stopping: StopPlan | None = None
    was_ready: bool = False
    watch: PeerWatch | None = None
    """What is known of the runners on other nodes; None: there are none."""

    def __post_init__(self) -> None:
        self.started_at = self.now
        self.procs = {p.name: Proc(p) for p in self.plan.processes}
        self.gates = {g.name: GateState(g) for g in self.plan.gates}

    # -- what others ask

    @property
    def ready(self) -> bool:
        """Every process of this container is ready, and nothing is stopping."""
        return self.stopping is None and all(p.ready for p in self.procs.values())

    @property
    def finished(self) -> bool:
        """Stopping, and nothing is left."""
        return self.stopping is not None and not any(p.alive for p in self.procs.values())

    def wants(self, name: str) -> list[str]:
        """What `name` still waits for before it can be spawned."""
        return [n for n in self.procs[name].spec.needs if not self._open(n)]

    def next_deadline(self) -> float | None:
        """When `tick` has something to do at the latest; None: only when something happens."""
        return deadlines.first(self.procs.values(), self.gates.values(), self.started_at, self.stopping)

    # -- what happened

    def spawned(self, name: str, pid: int, now: float) -> list[Action]:
        """The process was started."""
        proc = self.procs[name]
        proc.enter(State.RUNNING)
        proc.pid, proc.exit_code = pid, None
        proc.spawned_at = proc.last_sign = now
        proc.ready, proc.ready_at, proc.why, proc.killed = False, None, "starting", False
        proc.stuck = proc.requests = proc.unlisted_since = None
        proc.answers = proc.suspected = False
        proc.start_again_at, proc.hung = None, ""
        return []

    def spawn_failed(self, name: str, code: int, reason: str, now: float) -> list[Action]:
        """The process could not even be started: trying again would not help."""
        proc = self.procs[name]
        proc.enter(State.ENDED)
        proc.exit_code, proc.why = code, reason
        return self._end(Verdict(code, reason), now)

    def health(self, name: str, ready: bool, why: str, now: float, unlisted: bool = False) -> list[Action]:
        """A probe answered for process `name`. `unlisted`: a frontend that answers, but lacks the model."""
        proc = self.procs[name]
        if proc.state is not State.RUNNING or self.stopping is not None:
            return []
        proc.answers = ready
        if proc.stuck is not None:
            ready, why = False, str(proc.stuck)
        if not unlisted:
            proc.unlisted_since = None
        elif proc.unlisted_since is None:
            proc.unlisted_since = now
        if ready == proc.ready:
            proc.why = "" if ready else why
            return []
        proc.ready, proc.why = ready, "" if ready else why
        if not ready:
            return [Say(f"{name} is not ready any more: {why}")]
        first = proc.ready_at is None
        proc.ready_at, proc.recycles = now, 0
        took = now - (proc.spawned_at or now)
        said: list[Action] = [Say(f"{name} is ready" + (f" after {took:.1f} s" if first else " again"))]
        return said + self.tick(now)

    def silent(self, name: str, seconds: float, now: float) -> list[Action]:
        """No probe of process `name` has had any answer for `seconds`."""
        proc = self.procs[name]
        if self.stopping is not None or not silence.too_long(proc, seconds):
            return []
        if proc.spec.criticality is Criticality.CRITICAL:
            return self._broken(proc, silence.verdict(proc, seconds), now)
        return silence.replace(proc, seconds)

    def gate(self, name: str, answered: bool, why: str, now: float) -> list[Action]:
        """A server outside this container answered its probe, or did not."""
        gate = self.gates[name]
        was, gate.why = gate.open, "" if answered else why
        gate.open = gate.open or answered
        return self.tick(now) if gate.open and not was else []

    def sign(self, name: str, now: float) -> None:
        """The process gave a sign of progress."""
        self.procs[name].last_sign = now

    def doing(self, name: str, phase: str) -> None:
        """What the process does while it is not ready, in words; empty: nothing worth telling."""
        self.procs[name].phase = phase

    def exited(self, name: str, code: int, now: float, clues: Clues = NO_CLUES) -> list[Action]:
        """The process itself ended with `code` (128+n for signal n); its group may live on."""
        proc = self.procs[name]
        was = proc.state
        proc.enter(State.LEFTOVERS)
        proc.exit_code, proc.ready, proc.why = code, False, f"ended with {code}"
        latest = now if proc.killed else now + LEFTOVER_GRACE  # what a KILL has left is killed too
        proc.kill_at = min(proc.kill_at or latest, latest)
        rest: list[Action] = [Signal(name, "TERM", everything=True)]
        if proc.registered and code != 0:
            rest.append(Unlist(name))
        if self.stopping is not None:
            self.verdict, line = stop_ends.judge(self.verdict, proc, was, clues.ending)
            return [*([Say(line)] if line else []), *rest]
        if was is State.STOPPING:
            return rest
        said: list[Action] = [Say(f"{name} ended: {describe_code(code)}{clues.hint}"), *rest]
        if proc.spec.leader_hold is not None and clues.lost_rank is not None:
            proc.verdict, proc.verdict_at = lost(name, code, clues), now + LATE_STOP
        elif proc.spec.criticality is Criticality.CRITICAL:
            said += self._end(lost(name, code, clues), now)
        else:
            proc.verdict = restarts.useless(proc, clues.unusable, now)
        return said

    def hollow(self, name: str, dead: Dead, now: float, clues: Clues = NO_CLUES) -> list[Action]:
        """A vital process of `name` is dead and `name` itself goes on: requests to it would hang for ever."""
        proc = self.procs[name]
        if proc.state not in (State.RUNNING, State.DRAINING):
            return []
        verdict = broken(name, dead, clues)
        if self.stopping is not None:
            # What it still has to answer it never will, so nothing is gained by waiting.
            proc.enter(State.STOPPING)
            proc.broken = proc.killed = True
            self.verdict = stop_ends.worse(self.verdict, verdict)
            return [Say(f"{verdict.reason}: it is killed"), Kill(name)]
        return self._broken(proc, verdict, now)

    def _broken(self, proc: Proc, verdict: Verdict, now: float) -> list[Action]:
        """It runs, and answers nothing any more."""
        proc.broken = True
        actions = self._end(verdict, now)
        proc.why = verdict.reason
        return [Unlist(proc.spec.name), *actions] if proc.registered else actions

    def looked_at(self, name: str, found: Finding, now: float) -> list[Action]:
        """Somebody has looked whether `name` gets on."""
        proc = self.procs[name]
        limits = proc.spec.hang
        if limits is None or self.stopping is not None or proc.state is not State.RUNNING:
            return []
        proc.requests, proc.suspected = found.requests or proc.requests, found.suspects
        stuck = found.stuck
        if stuck is not None and limits.timeout and stuck.seconds >= limits.timeout:
            return self._broken(proc, hung(name, stuck), now)
        late = stuck is not None and limits.unready and stuck.seconds >= limits.unready
        proc.stuck, before = (stuck if late else None), proc.stuck
        proc.hangs += proc.stuck is not None and before is None
        if proc.ready_at is None or not (late or before):
            return []
        return self.health(name, proc.answers, proc.why, now)

    def gone(self, name: str, now: float) -> list[Action]:
        """Nothing of the process is left: no member of its group, no orphan."""
        proc = self.procs[name]
        if proc.state is not State.LEFTOVERS:
            return []
        proc.pid = proc.kill_at = None
        if self.stopping is not None or proc.verdict is not None:
            proc.enter(State.ENDED)
        elif proc.recycling:
            restarts.recycled(proc, now)
        else:
            said, verdict = restarts.after_end(proc, self.plan.max_restarts, self.jitter(), now)
            return said if verdict is None else self._end(verdict, now)
        return self.tick(now)

    def drained(self, name: str, now: float) -> list[Action]:
        """The process has answered its last request."""
        proc = self.procs[name]
        if proc.state is not State.DRAINING or self.stopping is None:
            return []
        return [stop_steps.signal_to_stop(proc, self.stopping, now), *self.tick(now)]

    def stop(self, reason: str, now: float, budget: float | None = None) -> list[Action]:
        """Asked to stop (a signal, a control command). `budget`: seconds, if more than planned."""
        return self._end(Verdict(ExitCode.OK, reason), now, budget)

    def fail(self, code: int, reason: str, now: float, budget: float | None = None) -> list[Action]:
        """Something outside the processes makes going on pointless (a lost peer, a fault of ours).

        `budget`: seconds for the stop, where its whole time would be waited for in vain.
        """
        return self._end(Verdict(code, reason), now, budget)

    def kill_all(self, now: float) -> list[Action]:
        """Asked a second time: no more waiting."""
        if self.stopping is not None:
            self.stopping.hurry(now)
        return self.tick(now)

    def tick(self, now: float) -> list[Action]:
        """Everything that is due at `now`."""
        if self.stopping is not None:
            return self._tick_stop(now)
        actions = self._overdue(now)
        for proc in self.procs.values():
            if self.stopping is None:
                actions += self._tick_process(proc, now)
        if self.ready and not self.was_ready:
            self.was_ready = True
            actions.append(Say(f"ready after {now - self.started_at:.1f} s"))
        return actions

    def _tick_process(self, proc: Proc, now: float) -> list[Action]:
        waiting = proc.state is State.WAITING and not self.wants(proc.spec.name)
        again = proc.state is State.BACKOFF and (proc.start_again_at or now) <= now
        if waiting or again:
            proc.enter(State.SPAWNING)
            return [Spawn(proc.spec.name)]
        if proc.ready and proc.restarts and now - (proc.ready_at or now) >= restarts.RESET:
            proc.restarts = 0
        killed, _ = stop_steps.kill_if_due(proc, None, now)
        said, verdict = restarts.recycle_if_unlisted(proc, self.procs.values(), now)
        return [*killed, *(said if verdict is None else self._end(verdict, now))]

    def _overdue(self, now: float) -> list[Action]:
        found = deadlines.overdue(self.procs.values(), self.gates.values(), self.started_at, now)
        if isinstance(found, Verdict):
            return self._end(found, now)
        return [] if found is None else self.health(found.spec.name, True, "", now)

    def _open(self, need: str) -> bool:
        if need in self.gates:
            return self.gates[need].open
        return self.procs[need].ready_at is not None

    def _end(self, verdict: Verdict, now: float, budget: float | None = None) -> list[Action]:
        if self.stopping is not None:
            return []
        self.verdict = verdict
        self.stopping = StopPlan(self.plan, now, budget, self.watch if verdict.code == 0 else None)
        stop_steps.begin(self.procs)
        return [Say(f"stopping: {verdict.reason}"), *self._tick_stop(now)]

    def _tick_stop(self, now: float) -> list[Action]:
        assert self.stopping is not None
        actions, self.verdict = stop_steps.turn(self.procs, self.stopping, self.verdict, now)
        return actions
