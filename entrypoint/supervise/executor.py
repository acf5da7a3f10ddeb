"""Carries out what the director decides: one method for each kind of action. In the loop's thread."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from signal import SIGKILL, Signals

from entrypoint.plan.types import LoadedProbe
from entrypoint.supervise.child import SpawnError, spawn_error
from entrypoint.supervise.children import Children
from entrypoint.supervise.discovery.lists import Lists
from entrypoint.supervise.lifecycle.actions import Action, Drain, Kill, Say, Signal, Spawn, Unlist
from entrypoint.supervise.lifecycle.director import Director
from entrypoint.supervise.lifecycle.states import State
from entrypoint.supervise.log_monitor import Watcher
from entrypoint.supervise.mailbox import Event
from entrypoint.supervise.output.forwarding import make_pipe
from entrypoint.supervise.probes.prober import Prober
from entrypoint.supervise.watchdog.hang_looks import Engine, HangLookout
from entrypoint.supervise.watchdog.vital import Lookout


@dataclass(frozen=True)
class Executor:
    """Who does what an action asks for."""

    director: Director
    children: Children
    watcher: Watcher
    prober: Prober
    lookout: Lookout
    hangs: HangLookout
    lists: Lists
    say: Callable[[str], None]
    post: Callable[[Event], None]

    def carry_out(self, actions: Iterable[Action]) -> None:
        """Each in turn, and what follows from it before the next."""
        for action in actions:
            if isinstance(action, Say):
                self.say(action.text)
            elif isinstance(action, Spawn):
                self._spawn(action.name)
            elif isinstance(action, Signal):
                signum = Signals[f"SIG{action.signal}"]
                send = self.children.signal_everything if action.everything else self.children.signal
                send(action.name, signum)
            elif isinstance(action, Drain):
                self._drain(action.name)
            elif isinstance(action, Unlist):
                self.lists.drop(action.name, self.children.all[action.name].pid)
            elif isinstance(action, Kill):
                self.children.signal_everything(action.name, SIGKILL)

    def _spawn(self, name: str) -> None:
        if self.director.procs[name].state is not State.SPAWNING:
            return  # the container stops since then: another one could not be started
        child, spec = self.children.all[name], self.director.plan.process(name)
        now = time.monotonic()
        try:
            pid, read = self._launch(name)
        except SpawnError as error:
            self.carry_out(self.director.spawn_failed(name, error.code, str(error), now))
            return
        child.attach(self.watcher.new_output(name, read))
        self.carry_out(self.director.spawned(name, pid, now))
        self.say(f"{name} started with pid {pid}")
        if child.life == 1:
            self.lists.clear(name)
        if not isinstance(spec.ready, LoadedProbe) and spec.ready.kind != "alive":
            loads, listed = spec.log_dialect is not None, self.lists.watched(name, pid)
            self.prober.watch(name, spec.ready, child.life, loads, listed)
        settled = partial(self._settled, name)
        if spec.vital:
            self.lookout.watch(name, pid, spec.vital, child.life, settled)
        if spec.hang is not None:
            batches = partial(self.watcher.batches, name)
            self.hangs.watch(Engine(name, child.life, pid, spec.vital, spec.hang, settled, batches))

    def _launch(self, name: str) -> tuple[int, int]:
        """(its pid, the read end of its output), or SpawnError."""
        try:
            read, write = make_pipe()
        except OSError as error:
            raise spawn_error(name, error, "a pipe for its output") from None
        try:
            return self.children.launch(name, write), read
        except SpawnError:
            os.close(read)
            raise
        finally:
            os.close(write)

    def _settled(self, name: str) -> bool:
        """It has been ready: it has started all that it needs. Safe from any thread."""
        return self.director.procs[name].ready_at is not None

    def _drain(self, name: str) -> None:
        drain = self.director.plan.process(name).drain
        assert drain is not None
        first = self.lists.before_drain(name, self.children.all[name].pid)
        self.prober.drain(name, drain, lambda: self.post(lambda now: self.director.drained(name, now)), first)
