"""Restarts in place: after an end, and of a frontend that does not find its workers. Pure."""

from __future__ import annotations

from collections.abc import Collection

from entrypoint.errors import ExitCode
from entrypoint.supervise.lifecycle import deadlines
from entrypoint.supervise.lifecycle.actions import Action, Say, Signal
from entrypoint.supervise.lifecycle.process import Proc
from entrypoint.supervise.lifecycle.states import State
from entrypoint.supervise.lifecycle.verdicts import Verdict, describe_code

RESET = 60.0
"""Seconds of readiness after which a server starts counting its restarts anew."""
BACKOFF_FIRST, BACKOFF_MAX = 0.5, 30.0
"""Seconds before the first restart in place, doubled for each further one; and at most."""
DOUBLINGS = 10
"""After so many the delay is BACKOFF_MAX for certain."""
RECYCLE_GRACE = 4.0
"""Seconds between the stop signal and KILL of a frontend that is restarted: it serves nobody."""
MAX_RECYCLES = 2
"""Restarts of a frontend that does not find its workers: after that it is them that are not registered."""


def after_end(proc: Proc, most: int, jitter: float, now: float) -> tuple[list[Action], Verdict | None]:
    """Nothing of a server is left: it waits to be started again, or has been `most` times in vain.

    The second is how the run ends then. `jitter`: factor on the delay.
    """
    name, code = proc.spec.name, proc.exit_code if proc.exit_code is not None else 1
    if proc.restarts >= most:
        proc.enter(State.ENDED)
        again = f" after {proc.restarts} restarts (GLM47_MAX_RESTARTS)" if proc.restarts else ""
        if proc.hung:
            return [], Verdict(ExitCode.TEMPFAIL, f"{name} {proc.hung}{again}: start it again")
        reason = f"{name} ended: {describe_code(code)}{again}: see its log"
        return [], Verdict(code or ExitCode.FAILURE, reason)
    # A factor of 2 to the power of a thousand is no float.
    delay = min(BACKOFF_MAX, BACKOFF_FIRST * 2 ** min(proc.restarts, DOUBLINGS)) * jitter
    proc.restarts += 1
    proc.restarts_total += 1
    proc.enter(State.BACKOFF)
    proc.start_again_at, proc.why = now + delay, "waits to be restarted"
    return [Say(f"{name} is restarted in {delay:.1f} s (restart {proc.restarts} of {most})")], None


def useless(proc: Proc, unusable: Verdict | None, now: float) -> Verdict | None:
    """How the run ends when a server's data would end its next life too (`unusable`); None: it may go on.

    Damage that it met soon after it was ready it would meet again; a full disk may have room by then.
    `now`: monotonic seconds.
    """
    if unusable is None or proc.ready_at is None:
        return unusable
    soon = now - proc.ready_at < RESET
    return unusable if soon and unusable.code == ExitCode.UNAVAILABLE else None


def recycle_if_unlisted(
    proc: Proc, procs: Collection[Proc], now: float
) -> tuple[list[Action], Verdict | None]:
    """A frontend that has not found its workers for too long is stopped, to be started again at once.

    The second is how the run ends when that has not helped before.
    """
    since = deadlines.unlisted_since(proc, procs)
    limit = proc.spec.unlisted_timeout
    if since is None or limit is None or now < since + limit:
        return [], None
    name, what = proc.spec.name, f"its workers {limit:g} s after they were ready ({proc.why})"
    if proc.recycles >= MAX_RECYCLES:
        reason = f"{name} cannot use {what}, nor could it before {proc.recycles} restarts: start again"
        return [], Verdict(ExitCode.TEMPFAIL, reason)
    proc.recycling = True
    proc.recycles += 1
    proc.enter(State.STOPPING)
    proc.kill_at = now + min(proc.spec.grace, RECYCLE_GRACE)
    text = f"{name} cannot use {what}: it is restarted"
    return [Say(text), Signal(name, proc.spec.stop_signal)], None


def recycled(proc: Proc, now: float) -> None:
    """It has stopped, and is started again at `now` (monotonic seconds) with nothing known of it."""
    proc.recycling, proc.unlisted_since = False, None
    proc.restarts_total += 1
    proc.enter(State.BACKOFF)
    proc.start_again_at = now
