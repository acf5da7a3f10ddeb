"""A process that was ready, still runs, and answers no question any more: stopped, or hung. Pure.

A server is killed and started again, which counts as a restart; what is critical ends its container.
"""

from __future__ import annotations

from entrypoint.errors import ExitCode
from entrypoint.supervise.lifecycle.actions import Action, Kill, Say
from entrypoint.supervise.lifecycle.process import Proc
from entrypoint.supervise.lifecycle.states import State
from entrypoint.supervise.lifecycle.verdicts import Verdict


def too_long(proc: Proc, seconds: float) -> bool:
    """Whether a process that has given no answer for `seconds` hangs."""
    limit = proc.spec.silent_timeout
    serves = proc.state is State.RUNNING and proc.ready_at is not None
    return serves and limit is not None and seconds >= limit


def replace(proc: Proc, seconds: float) -> list[Action]:
    """Kill a server that has given no answer for `seconds`: its end is followed by its restart."""
    name = proc.spec.name
    proc.hung = _hangs(seconds)
    proc.enter(State.STOPPING)
    proc.killed = True
    return [Say(f"{name} {proc.hung}: it is killed and started again"), Kill(name)]


def verdict(proc: Proc, seconds: float) -> Verdict:
    """The end that a critical process causes by giving no answer for `seconds`."""
    return Verdict(ExitCode.TEMPFAIL, f"{proc.spec.name} {_hangs(seconds)}: start it again")


def _hangs(seconds: float) -> str:
    return f"hangs: it has answered nothing for {seconds:.0f} s"
