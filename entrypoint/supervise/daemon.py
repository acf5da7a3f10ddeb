"""The supervisor's loop: events to the director, its actions to the executor, until the plan is at its end.

It sleeps until something happens: a signal, a child's end, a probe's answer, output, a control connection.
Nothing that it does on a turn may block.
"""

from __future__ import annotations

import random
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from entrypoint.errors import ExitCode, shortage
from entrypoint.plan.types import FrontendProbe, Plan
from entrypoint.supervise import ports, signals
from entrypoint.supervise.children import LEAVING_POLL, Children
from entrypoint.supervise.discovery.file_store import Keeper
from entrypoint.supervise.discovery.lists import Lists
from entrypoint.supervise.executor import Executor
from entrypoint.supervise.lifecycle import stop_steps
from entrypoint.supervise.lifecycle.actions import Action, Say
from entrypoint.supervise.lifecycle.director import Director
from entrypoint.supervise.lifecycle.looks import Finding
from entrypoint.supervise.lifecycle.states import State
from entrypoint.supervise.lifecycle.verdicts import Clues, Dead, Verdict
from entrypoint.supervise.log_monitor import Watcher
from entrypoint.supervise.mailbox import Event, Mailbox
from entrypoint.supervise.output.forwarding import Output
from entrypoint.supervise.probes.prober import Answer, Prober
from entrypoint.supervise.status import report
from entrypoint.supervise.status.history import History
from entrypoint.supervise.supervisord.control import ControlSocket
from entrypoint.supervise.supervisord.views import Controlled
from entrypoint.supervise.waiting import Reserve, Waiting
from entrypoint.supervise.watchdog.hang_looks import HangLookout
from entrypoint.supervise.watchdog.vital import Lookout
from entrypoint.supervise.watchdog.witness import Witness

if TYPE_CHECKING:
    from entrypoint.supervise.peers.shared_fate import SharedFate

HEARTBEAT = 1.0
"""Longest sleep of the loop, in seconds; /livez measures against it."""


class Daemon:
    """Runs one plan to its end: `run_plan` returns the verdict."""

    def __init__(
        self,
        plan: Plan,
        environ: Mapping[str, str],
        control: ControlSocket,
        on_ready: Callable[[Plan], str | None] | None = None,
    ) -> None:
        """`on_ready` is called once everything is ready, and may give a text to show."""
        self.mailbox = Mailbox()
        self._waiting, self._control = Waiting(self.mailbox.fd), control
        self._reserve = Reserve(self.mailbox.fd)
        self.plan, self._on_ready = plan, on_ready
        self.children = Children(plan, environ)
        self.output = Output(
            [p.name for p in plan.processes],
            log_format=plan.log_format,
            log_dir=plan.log_dir,
            log_names=plan.job.log_names if plan.job is not None else {},
            # Nobody else gives lines a time there.
            dated=plan.job is not None and plan.job.number is not None,
            on_space=self.mailbox.wake,
        )
        self.director = Director(plan, time.monotonic(), jitter=lambda: random.uniform(0.5, 1.0))
        self.heartbeat = time.monotonic()
        dynamo = next((p.env for p in plan.processes if p.name in ("frontend", "decode")), {})
        self.prober = Prober(
            self._post, plan.announcements, {**environ, **dynamo}, plan.ports, plan.status_token
        )
        self.lookout = Lookout(self._found_dead)
        self.hangs = HangLookout(self._looked_at, self.prober.client)
        self.lists = Lists(plan, environ, lambda text: self.post(lambda now: [Say(text)]))
        # A worker that dies stops the container, so until then all of them live.
        self.keeper = Keeper(plan.fresh_dirs, lambda: self.director.stopping is None)
        self.fate: SharedFate | None = None
        if plan.job is not None:
            from entrypoint.supervise.peers.shared_fate import SharedFate
            from entrypoint.supervise.status import job_files

            rest = partial(job_files.stop_budget, plan), self.lookout.killed, self._clues
            self.fate = SharedFate(plan.job, self.director, self.post, plan.status_token, *rest)
        self.watcher = Watcher(plan, self.director, self.output, self.prober.nudge)
        self._carry_out = Executor(
            director=self.director,
            children=self.children,
            watcher=self.watcher,
            prober=self.prober,
            lookout=self.lookout,
            hangs=self.hangs,
            lists=self.lists,
            say=self.say,
            post=self.post,
        ).carry_out
        self._signals: deque[int] = deque()
        self.snapshot: dict[str, Any] = {}
        self._history = History(self.output.record, self.say)
        self._witness = Witness(plan, self.director, self.watcher.steps)

    def turned(self) -> float:
        """Seconds since the loop last turned. Safe from any thread."""
        return time.monotonic() - self.heartbeat

    # -- from other threads

    def post(self, event: Event) -> None:
        """Have the loop call `event(now)` and carry out what it returns. Safe from any thread."""
        self.mailbox.post(event)

    def _post(self, answer: Answer) -> None:
        self.post(lambda now: self._answered(answer, now))

    def _found_dead(self, name: str, life: int, dead: Dead) -> None:
        self.post(lambda now: self._hollow(name, life, dead, now))

    def _looked_at(self, name: str, life: int, found: Finding) -> None:
        def event(now: float) -> list[Action]:
            return self.director.looked_at(name, found, now) if life == self._life(name) else []

        self.post(event)

    def say(self, text: str) -> None:
        """A line of the runner's own."""
        self.output.say(text)

    # -- the run

    def handle_signals(self) -> None:
        """Take over the signals; earlier ones that were recorded are delivered on the first turn."""
        signals.catch(self.mailbox.wake_fd, self._signals.append)

    def run_plan(self, after_first_spawn: Callable[[], None]) -> Verdict:
        """Carry out the plan. `after_first_spawn` does what need not delay the processes' start."""
        for gate in self.plan.gates:
            self.prober.watch(gate.name, gate.probe)
        try:
            self._turn(0.0)
            self._control.start(self._controlled(), self.post)
            after_first_spawn()
            self.keeper.start()
            if self.fate is not None:
                self.fate.start()
            while not self.director.finished:
                self._turn(HEARTBEAT)
            self._exited(self.children.end_orphans())
            self._finish()
        except Exception as error:
            self._reserve.release()
            self._abandon()
            short = shortage(error)
            return Verdict(*short or (ExitCode.SOFTWARE, f"a fault of the runner itself: {error!r}"))
        finally:
            self.prober.close()
            self.lookout.close()
            self.hangs.close()
            self.keeper.close()
            if self.fate is not None:
                self.fate.close()
            self._reserve.release()
            signals.let_go()
        assert self.director.verdict is not None
        return self.director.verdict

    def _turn(self, longest: float) -> None:
        now = time.monotonic()
        self._carry_out(self.director.tick(now))
        if self.fate is not None:
            self._carry_out(self.fate.turn(now))
        self._read(self._timeout(now, longest))
        self.heartbeat = now = time.monotonic()
        # In this order: who is asked to stop and loses a process at once was asked; and what threads saw of a
        # process that has ended comes after its end.
        while self._signals:
            self._carry_out(self._signalled(self._signals.popleft(), now))
        self._exited(self.children.reap())
        self._deliver(now)
        for name in self.children.gone():
            self._carry_out(self.director.gone(name, now))
        self._carry_out(self.watcher.turn(now))
        self._carry_out(self._witness.turn(now))
        extra = self._witness.with_evidence(self.watcher.extra())
        self.snapshot = report.status(self.director, now, extra, self.prober.asked())
        self.snapshot |= self._witness.fields()
        self._history.turn(self.snapshot)
        if self._on_ready is not None and self.director.ready:
            text, self._on_ready = self._on_ready(self.plan), None
            if text is not None:
                self.output.show(text)

    def _deliver(self, now: float) -> None:
        while self.mailbox.events:
            self._carry_out(self.mailbox.events.popleft()(now))

    def _timeout(self, now: float, longest: float) -> float:
        if self.mailbox.events or self._signals:
            return 0.0
        changes = (self.director.next_deadline(), self.output.next_change(), self.watcher.next_look())
        timeout = min([longest, *(max(0.0, due - now) for due in changes if due is not None)])
        leaving = any(p.state in (State.LEFTOVERS, State.STOPPING) for p in self.director.procs.values())
        return min(timeout, LEAVING_POLL) if leaving else timeout

    def _read(self, timeout: float) -> None:
        self._waiting.wait({**self._control.handlers(), **self.children.readers()}, timeout)

    def _clues(self, name: str) -> Clues:
        return self.watcher.clues(name)

    def _life(self, name: str) -> int:
        return self.children.all[name].life

    def _controlled(self) -> Controlled:
        reason = "asked to stop through the control socket"
        return Controlled(
            self.director,
            self.children.all,
            self.output.paths(),
            shutdown=lambda: self.post(lambda now: self.director.stop(reason, now)),
            say=self.say,
        )

    # -- events

    def _answered(self, answer: Answer, now: float) -> list[Action]:
        if answer.name in self.director.gates:
            if answer.ready:
                self.prober.forget(answer.name)
            return self.director.gate(answer.name, answer.ready, answer.why, now)
        if answer.life != self._life(answer.name):
            return []
        if answer.hopeless:
            return self.director.fail(ExitCode.UNAVAILABLE, f"{answer.name} serves nobody: {answer.why}", now)
        if answer.taken:
            return self.director.fail(ExitCode.CONFIG, answer.why, now)
        unlisted = answer.loading and isinstance(self.plan.process(answer.name).ready, FrontendProbe)
        news: list[Action] = [Say(f"{answer.name}: {line}") for line in answer.news]
        news += self.director.health(answer.name, answer.ready, answer.why, now, unlisted)
        return news + (self.director.silent(answer.name, answer.silent, now) if answer.silent else [])

    def _hollow(self, name: str, life: int, dead: Dead, now: float) -> list[Action]:
        if life != self._life(name):
            return []
        return self.director.hollow(name, dead, now, self.watcher.clues(name))

    def _signalled(self, signum: int, now: float) -> list[Action]:
        if signum == signal.SIGUSR1:
            return [Say(line) for line in self.watcher.describe()]
        if signum == signal.SIGCHLD:
            return []
        name = signal.Signals(signum).name
        if self.director.stopping is not None:
            if signum == signal.SIGINT:
                return [Say("asked again to stop: everything is killed"), *self.director.kill_all(now)]
            # Slurm's own end after the batch script's: it kills after KillWait, whatever there was before.
            stop_steps.shorten(self.director.procs, self.director.stopping, now)
            return self.director.tick(now)
        reason = f"asked to stop by {name}"
        if self.fate is not None:
            return self.fate.asked_to_stop(reason, now)
        return self.director.stop(reason, now)

    def _exited(self, ended: Iterable[tuple[str, int]]) -> None:
        now = time.monotonic()
        for name, code in ended:
            self.prober.forget(name)
            self.lookout.forget(name)
            self.hangs.forget(name)
            # One that was asked to stop did not fail for its port, which what it left behind may still hold.
            if code and self.director.stopping is None:
                own = (endpoint for endpoint in self.plan.ports if endpoint.process == name)
                if taken := ports.taken_from(own):
                    self._carry_out(self.director.fail(ExitCode.CONFIG, taken, now))
            clues = replace(self.watcher.clues(name), dead=self.lookout.suspect(name))
            self._carry_out(self.director.exited(name, code, now, clues))

    def _finish(self) -> None:
        """Nothing is left but what other threads still have to do and say."""
        self.lists.finish()
        self._deliver(time.monotonic())

    def _abandon(self) -> None:
        """A fault of ours: leave nothing running."""
        for name in self.children.all:
            self.children.signal_everything(name, signal.SIGKILL)
        for _ in self.children.end_orphans():
            pass
