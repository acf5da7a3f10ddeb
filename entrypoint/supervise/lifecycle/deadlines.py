"""When something is due for a process, and what is late. Pure; times are monotonic seconds."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from entrypoint.errors import ExitCode
from entrypoint.plan.types import AliveProbe, Criticality
from entrypoint.supervise.lifecycle.process import GateState, Proc
from entrypoint.supervise.lifecycle.states import State
from entrypoint.supervise.lifecycle.verdicts import Verdict

if TYPE_CHECKING:
    from entrypoint.supervise.lifecycle.stopping import StopPlan


def first(
    procs: Collection[Proc], gates: Iterable[GateState], started_at: float, stopping: StopPlan | None
) -> float | None:
    """When the director must look again at the latest; None: only when something happens."""
    if stopping is None:
        times = [t for proc in procs for t in of_life(proc, procs)]
        times += [started_at + gate.spec.timeout for gate in gates if not gate.open]
    else:
        times = [t for proc in procs for t in of_stop(proc)]
        if (hold_end := stopping.hold_end()) is not None:
            times.append(hold_end)
    return min(times, default=None)


def of_stop(proc: Proc) -> list[float]:
    """When the director must look at a process while the container stops."""
    times = _kill(proc)
    if proc.state is State.DRAINING and proc.drain_until is not None:
        times.append(proc.drain_until)
    return times


def of_life(proc: Proc, all_of_them: Iterable[Proc]) -> list[float]:
    """When the director must look at a process otherwise."""
    spec, times = proc.spec, _kill(proc)
    if proc.state is State.BACKOFF and proc.start_again_at is not None:
        times.append(proc.start_again_at)
    if proc.state is State.RUNNING and proc.ready_at is None and proc.spawned_at is not None:
        if isinstance(spec.ready, AliveProbe):
            times.append(proc.spawned_at + spec.ready.seconds)
        if spec.start_timeout is not None:
            times.append(proc.spawned_at + spec.start_timeout)
        if spec.stall_timeout is not None:
            times.append(proc.last_sign + spec.stall_timeout)
    if proc.verdict_at is not None:
        times.append(proc.verdict_at)
    if (since := unlisted_since(proc, all_of_them)) is not None:
        times.append(since + (spec.unlisted_timeout or 0.0))
    return times


def _kill(proc: Proc) -> list[float]:
    again = not proc.killed or proc.state is State.LEFTOVERS
    return [proc.kill_at] if proc.kill_at is not None and proc.alive and again else []


def late(proc: Proc, now: float) -> str | None:
    """Why a process that is not ready yet has had enough time; None: it has not."""
    start, stall = proc.spec.start_timeout, proc.spec.stall_timeout
    doing = f"it was: {proc.phase or proc.why}"
    if start is not None and proc.spawned_at is not None and now >= proc.spawned_at + start:
        remedy = "see its log, or raise GLM47_START_TIMEOUT"
        if proc.spec.data is not None:
            where = proc.spec.data.directory
            remedy = f"see its log; if {where} is damaged or another cluster's, move it away"
        return f"is not ready after {start:g} s ({doing}): {remedy}"
    if stall is not None and now >= proc.last_sign + stall:
        return f"made no progress for {stall:g} s ({doing}): see its log, or raise GLM47_STALL_TIMEOUT"
    return None


def overdue(
    procs: Iterable[Proc], gates: Iterable[GateState], started_at: float, now: float
) -> Verdict | Proc | None:
    """How the run ends for what is late at `now`; or a process that has lived as long as makes it ready."""
    if silent := silent_gate(gates, started_at, now):
        return Verdict(ExitCode.UNAVAILABLE, silent)
    for proc in procs:
        if proc.verdict is not None and now >= (proc.verdict_at or now):
            return proc.verdict
        if proc.state is State.RUNNING and proc.ready_at is None and proc.spawned_at is not None:
            probe = proc.spec.ready
            if isinstance(probe, AliveProbe) and now >= proc.spawned_at + probe.seconds:
                return proc
            if why := late(proc, now):
                return Verdict(ExitCode.TEMPFAIL, f"cannot start: {proc.spec.name} {why}")
    return None


def silent_gate(gates: Iterable[GateState], started_at: float, now: float) -> str | None:
    """Why the start is given up for a server outside that never answered; None: it is not."""
    for gate in gates:
        spec = gate.spec
        if not gate.open and now >= started_at + spec.timeout:
            silent = f"{spec.name} at {spec.probe.where} did not answer for {spec.timeout:g} s"
            return f"cannot start: {silent} ({gate.why}): start it, or correct {spec.setting}"
    return None


def unlisted_since(proc: Proc, all_of_them: Iterable[Proc]) -> float | None:
    """Since when a frontend has not seen what is registered, although every worker here is ready."""
    if proc.unlisted_since is None or proc.spec.unlisted_timeout is None or proc.state is not State.RUNNING:
        return None
    workers = [p for p in all_of_them if p.spec.criticality is Criticality.CRITICAL]
    if not all(p.ready for p in workers):
        return None
    return max([proc.unlisted_since] + [p.ready_at or 0.0 for p in workers])
