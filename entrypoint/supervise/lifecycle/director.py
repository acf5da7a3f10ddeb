"""Decides what the supervisor does next. Pure: events and the time go in, actions come out.

Times are seconds of a monotonic clock. Nothing here touches a process, a file or a socket, so every
rule of fate, restart and stop can be tested without one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from entrypoint.errors import ExitCode
from entrypoint.plan.stop_budget import BROKEN_GRACE, LATE_STOP, LEFTOVER_GRACE
from entrypoint.plan.types import AliveProbe, Criticality, Plan
from entrypoint.supervise.lifecycle import deadlines, stop_ends
from entrypoint.supervise.lifecycle.states import (
    NO_CLUES,
    Action,
    Clues,
    Dead,
    Drain,
    GateState,
    Kill,
    Proc,
    Say,
    Signal,
    Spawn,
    State,
    Unlist,
    Verdict,
    broken,
    describe_code,
    hung,
    lost,
)
from entrypoint.supervise.lifecycle.stopping import StopPlan

if TYPE_CHECKING:
    from entrypoint.supervise.lifecycle.looks import Finding
    from entrypoint.supervise.lifecycle.peer_watch import PeerWatch

RESTART_RESET = 60.0
"""A server that stayed ready this long starts counting its restarts anew."""
BACKOFF_FIRST, BACKOFF_MAX = 0.5, 30.0
"""Seconds before the first restart in place, doubled for each further one; and at most."""
MAX_RECYCLES = 2
"""Restarts of a frontend that does not find its workers: after that it is them that are not registered."""


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
        proc.state, proc.pid, proc.exit_code = State.RUNNING, pid, None
        proc.spawned_at = proc.last_sign = now
        proc.unlisted_since = None
        proc.ready, proc.ready_at, proc.why, proc.killed = False, None, "starting", False
        proc.stuck = proc.requests = None
        proc.answers = proc.suspected = False
        proc.start_again_at = None
        return []

    def spawn_failed(self, name: str, code: int, reason: str, now: float) -> list[Action]:
        """The process could not even be started: trying again would not help."""
        proc = self.procs[name]
        proc.state, proc.exit_code, proc.why = State.ENDED, code, reason
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

    def gate(self, name: str, answered: bool, why: str, now: float) -> list[Action]:
        """A server outside this container answered its probe, or did not."""
        gate = self.gates[name]
        was, gate.why = gate.open, "" if answered else why
        gate.open = gate.open or answered
        return self.tick(now) if gate.open and not was else []

    def sign(self, name: str, now: float) -> None:
        """The process gave a sign of progress."""
        self.procs[name].last_sign = now

    def exited(self, name: str, code: int, now: float, clues: Clues = NO_CLUES) -> list[Action]:
        """The process itself ended with `code` (128+n for signal n); its group may live on."""
        proc = self.procs[name]
        was = proc.state
        proc.exit_code, proc.ready, proc.why = code, False, f"ended with {code}"
        proc.state = State.LEFTOVERS
        proc.kill_at = min(proc.kill_at or now + LEFTOVER_GRACE, now + LEFTOVER_GRACE)
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
        return said

    def hollow(self, name: str, dead: Dead, now: float, clues: Clues = NO_CLUES) -> list[Action]:
        """A vital process of `name` is dead and `name` itself goes on: requests to it would hang for ever."""
        proc = self.procs[name]
        if proc.state not in (State.RUNNING, State.DRAINING):
            return []
        verdict = broken(name, dead, clues)
        if self.stopping is not None:
            # What it still has to answer it never will, so nothing is gained by waiting.
            proc.state, proc.broken, proc.killed = State.STOPPING, True, True
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
        if proc.ready_at is None or not (late or before):
            return []
        return self.health(name, proc.answers, proc.why, now)

    def gone(self, name: str, now: float) -> list[Action]:
        """Nothing of the process is left: no member of its group, no orphan."""
        proc = self.procs[name]
        if not proc.alive:
            return []
        proc.pid = proc.kill_at = None
        if self.stopping is not None or proc.verdict is not None:
            proc.state = State.ENDED
            return self.tick(now)
        if proc.recycling:
            proc.recycling = False
            proc.restarts_total += 1
            # What was asked of the last life says nothing of the next.
            proc.unlisted_since = None
            proc.state, proc.start_again_at = State.BACKOFF, now
            return self.tick(now)
        return self._restart(proc, now)

    def drained(self, name: str, now: float) -> list[Action]:
        """The process has answered its last request."""
        proc = self.procs[name]
        if proc.state is not State.DRAINING:
            return []
        return [self._signal_to_stop(proc, now), *self.tick(now)]

    def stop(self, reason: str, now: float) -> list[Action]:
        """Asked to stop (a signal, a control command)."""
        return self._end(Verdict(ExitCode.OK, reason), now)

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

    # -- what is due

    def tick(self, now: float) -> list[Action]:
        """Everything that is due at `now`."""
        if self.stopping is not None:
            return self._tick_stop(now)
        actions = self._overdue(now)
        if self.stopping is not None:
            return actions
        for proc in self.procs.values():
            waiting = proc.state is State.WAITING and not self.wants(proc.spec.name)
            again = proc.state is State.BACKOFF and (proc.start_again_at or now) <= now
            if waiting or again:
                proc.state = State.RUNNING
                actions.append(Spawn(proc.spec.name))
            elif proc.state in (State.LEFTOVERS, State.STOPPING):
                actions += self._kill_if_due(proc, now)
            elif proc.ready and proc.restarts and now - (proc.ready_at or now) >= RESTART_RESET:
                proc.restarts = 0
            actions += self._recycle_if_unlisted(proc, now)
        if self.ready and not self.was_ready:
            self.was_ready = True
            actions.append(Say(f"ready after {now - self.started_at:.1f} s"))
        return actions

    def _overdue(self, now: float) -> list[Action]:
        if silent := deadlines.silent_gate(self.gates.values(), self.started_at, now):
            return self._end(Verdict(ExitCode.UNAVAILABLE, silent), now)
        for proc in self.procs.values():
            if proc.verdict is not None and now >= (proc.verdict_at or now):
                return self._end(proc.verdict, now)
            if proc.state is State.RUNNING and proc.ready_at is None and proc.spawned_at is not None:
                probe = proc.spec.ready
                if isinstance(probe, AliveProbe) and now >= proc.spawned_at + probe.seconds:
                    return self.health(proc.spec.name, True, "", now)
                if late := deadlines.late(proc, now):
                    reason = f"cannot start: {proc.spec.name} {late}"
                    return self._end(Verdict(ExitCode.TEMPFAIL, reason), now)
        return []

    def _open(self, need: str) -> bool:
        if need in self.gates:
            return self.gates[need].open
        return self.procs[need].ready_at is not None

    # -- restart

    def _restart(self, proc: Proc, now: float) -> list[Action]:
        name, code = proc.spec.name, proc.exit_code if proc.exit_code is not None else 1
        if proc.restarts >= self.plan.max_restarts:
            proc.state = State.ENDED
            again = f" after {proc.restarts} restarts (GLM47_MAX_RESTARTS)" if proc.restarts else ""
            reason = f"{name} ended: {describe_code(code)}{again}: see its log"
            return self._end(Verdict(code or ExitCode.FAILURE, reason), now)
        delay = min(BACKOFF_MAX, BACKOFF_FIRST * 2**proc.restarts) * self.jitter()
        proc.restarts += 1
        proc.restarts_total += 1
        proc.state, proc.start_again_at, proc.why = State.BACKOFF, now + delay, "waits to be restarted"
        count = f"{proc.restarts} of {self.plan.max_restarts}"
        return [Say(f"{name} is restarted in {delay:.1f} s (restart {count})")]

    def _recycle_if_unlisted(self, proc: Proc, now: float) -> list[Action]:
        since = deadlines.unlisted_since(proc, self.procs.values())
        limit = proc.spec.unlisted_timeout
        if since is None or limit is None or now < since + limit:
            return []
        name, what = proc.spec.name, f"its workers {limit:g} s after they were ready ({proc.why})"
        if proc.recycles >= MAX_RECYCLES:
            reason = f"{name} cannot use {what}, nor could it before {proc.recycles} restarts: start again"
            return self._end(Verdict(ExitCode.TEMPFAIL, reason), now)
        proc.recycling = True
        proc.recycles += 1
        proc.state, proc.kill_at = State.STOPPING, now + proc.spec.grace
        text = f"{name} cannot use {what}: it is restarted"
        return [Say(text), Signal(proc.spec.name, proc.spec.stop_signal)]

    # -- stop

    def _end(self, verdict: Verdict, now: float, budget: float | None = None) -> list[Action]:
        if self.stopping is not None:
            return []
        self.verdict = verdict
        self.stopping = StopPlan(self.plan, now, budget, self.watch if verdict.code == 0 else None)
        for proc in self.procs.values():
            proc.ready, proc.recycling = False, False
            if proc.alive:
                proc.why = "stopping"
            else:
                proc.state = State.ENDED
        return [Say(f"stopping: {verdict.reason}"), *self._tick_stop(now)]

    def _tick_stop(self, now: float) -> list[Action]:
        assert self.stopping is not None
        self.stopping.turn(now)
        alive = {p.spec.name for p in self.procs.values() if p.alive}
        actions: list[Action] = []
        for proc in self.procs.values():
            name = proc.spec.name
            # What is broken answers nobody: whoever waits for its answers is better off without it.
            if proc.state is State.RUNNING and (proc.broken or self.stopping.may_stop(name, alive)):
                if not proc.may_finish or self.stopping.hurried:
                    actions.append(self._signal_to_stop(proc, now))
                else:
                    proc.state = State.DRAINING
                    proc.drain_until = self.stopping.drain_until(name, now)
                    if proc.spec.drain is not None:
                        actions.append(Drain(name))
            elif proc.state is State.DRAINING and now >= min(proc.drain_until or now, self.stopping.end):
                actions.append(Say(f"{name} {proc.still} when its time to drain is over"))
                actions.append(self._signal_to_stop(proc, now))
            elif proc.state in (State.LEFTOVERS, State.STOPPING) and proc.kill_at is not None:
                proc.kill_at = min(proc.kill_at, self.stopping.latest_kill(name))
            actions += self._kill_if_due(proc, now)
        return actions

    def _signal_to_stop(self, proc: Proc, now: float) -> Action:
        assert self.stopping is not None
        proc.state = State.STOPPING
        proc.kill_at = self.stopping.kill_at(proc.spec.name, now)
        if proc.may_be_cut_off:
            proc.kill_at = min(proc.kill_at, now + (proc.spec.loading_grace or 0.0))
        if proc.broken:
            proc.kill_at = min(proc.kill_at, now + BROKEN_GRACE)
        return Signal(proc.spec.name, proc.spec.stop_signal)

    def _kill_if_due(self, proc: Proc, now: float) -> list[Action]:
        if proc.killed or proc.kill_at is None or now < proc.kill_at or not proc.alive:
            return []
        proc.killed = True
        name = proc.spec.name
        if proc.may_be_cut_off and proc.state is State.STOPPING:
            return [Say(f"{name} is still loading and is killed"), Kill(name)]
        text = f"{name} did not leave in time and is killed"
        if self.verdict is not None and self.verdict.code == ExitCode.OK and proc.state is State.STOPPING:
            self.verdict = Verdict(128 + 9, f"{self.verdict.reason}; {text}")
        return [Say(text), Kill(name)]
