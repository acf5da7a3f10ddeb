"""What a process's end means while its container stops: was that how it was asked to end? Pure."""

from __future__ import annotations

from entrypoint.errors import ExitCode
from entrypoint.plan.types import Criticality
from entrypoint.supervise.lifecycle.endings import Ending
from entrypoint.supervise.lifecycle.process import Proc
from entrypoint.supervise.lifecycle.states import State
from entrypoint.supervise.lifecycle.verdicts import Verdict, describe_code

KILLED = 128 + 9


def judge(verdict: Verdict | None, proc: Proc, was: State, ending: Ending) -> tuple[Verdict | None, str]:
    """(the verdict from now on, a line to say or nothing) after `proc`, in state `was`, has ended.

    `ending`: what its log says of that.
    """
    code, name = proc.exit_code or 0, proc.spec.name
    if code == 0 or proc.killed or verdict is None or verdict.code != ExitCode.OK:
        return verdict, ""
    if proc.spec.leader_hold is not None and ending is not Ending.UNKNOWN:
        return verdict, f"{name} has gone with its leader"
    signalled = was is State.STOPPING
    line = f"{name} ended{'' if signalled else ' before its stop signal'}: {describe_code(code)}"
    as_asked = ending is Ending.DRAINED or (signalled and code != KILLED)
    if as_asked or proc.spec.criticality is not Criticality.CRITICAL:
        return verdict, line
    if ending is Ending.CHILD_FAILED:
        line += ", since a process of its own had failed: see its log"
    elif code == KILLED:
        line += ", but not by the runner: out of memory? See the kernel's log"
    return worse(verdict, Verdict(code, line)), line


def worse(verdict: Verdict | None, found: Verdict) -> Verdict | None:
    """A stop that was asked for is spoiled by `found`; any other end keeps its first cause."""
    if verdict is None or verdict.code != ExitCode.OK:
        return verdict
    return Verdict(found.code, f"{verdict.reason}; {found.reason}")
