"""`run`: settings, plan, prepare, supervise, exit code: the order of a run."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from entrypoint.base import last_words
from entrypoint.base.late import late_dataclasses
from entrypoint.errors import ConfigError, ExitCode, RunnerError, shortage
from entrypoint.run.aside import aside, give_up
from entrypoint.run.leave import leave, tell_job
from entrypoint.run.supervised import import_supervisor, supervise
from entrypoint.settings import early

if TYPE_CHECKING:
    from entrypoint.load import Loaded
    from entrypoint.plan.types import Plan

DEFAULT_TERMINATION_LOG = "/dev/termination-log"


def run(environ: Mapping[str, str]) -> NoReturn:
    """Carry out the plan that `environ` asks for, and exit."""
    with late_dataclasses():
        from entrypoint.load import load_plan

    become(lambda: load_plan(environ, Path.cwd()), environ)


def become(
    load: Callable[[], Loaded], environ: Mapping[str, str], on_ready: Callable[[Plan], str] | None = None
) -> NoReturn:
    """Make the plan, carry it out, and leave with the exit code and the reason that belong together.

    `on_ready` gives a text to show once everything is ready.
    """
    log = early.value("GLM47_TERMINATION_LOG", environ, Path.cwd()) or DEFAULT_TERMINATION_LOG
    try:
        _stop_early(log)
        # Nothing that an import makes is garbage: searching it took 15 ms of the way to the first spawn.
        gc.disable()
        owner = os.getpid()
        with late_dataclasses():
            loaded, lock = aside(lambda: _load_and_prepare(load, owner), import_supervisor)
        gc.freeze()
        gc.enable()
        log = loaded.plan.termination_log or ""
        verdict = supervise(loaded.plan, dict(loaded.environ), lock, on_ready, loaded.versions)
    except RunnerError as error:
        tell_job(environ, error.exit_code, str(error))
        leave(error.exit_code, str(error), error.termination_log or log, environ)
    except Exception as error:
        if (short := shortage(error)) is not None:
            tell_job(environ, short.code, short.reason)
            leave(short.code, short.reason, log, environ)
        import traceback

        with contextlib.suppress(OSError):
            traceback.print_exc()
        tell_job(environ, ExitCode.SOFTWARE, repr(error))
        leave(ExitCode.SOFTWARE, f"a fault of the runner itself: {error!r}", log, environ)
    last_words.write_termination_log(log, verdict.reason)
    tell_job(environ, verdict.code, verdict.reason, loaded.plan)
    os._exit(verdict.code)


def _load_and_prepare(load: Callable[[], Loaded], owner: int) -> tuple[Loaded, int]:
    """The plan, carried out as far as the first process, and the lock of its run directory."""
    from entrypoint.prepare import leftovers, run_dir, stack_hook, steps
    from entrypoint.prepare.parser import given

    loaded = load()
    try:
        if loaded.plan.unmet:
            raise ConfigError(loaded.plan.unmet)
        # Before anything of a first runner's in the same directory is touched.
        run_dir.make_for(loaded.plan)
        mine = leftovers.identity()
        lock, killed = run_dir.lock(loaded.plan.run_dir, owner, mine)
        loaded = replace(loaded, environ={**loaded.environ, leftovers.RUNNER: mine})
        if killed and (left := leftovers.end(killed)):
            note = f"the runner before was killed and had left, now ended: {', '.join(left)}"
            loaded = replace(loaded, plan=replace(loaded.plan, notes=(*loaded.plan.notes, note)))
        with given.asked(loaded.plan, loaded.environ) as questions:
            steps.prepare(loaded.plan)
            plan = steps.with_patched_sources(loaded.plan, loaded.environ)
            plan = steps.with_flashinfer(plan, loaded.environ)
            plan = stack_hook.hook(plan, loaded.environ, owner)
            return replace(loaded, plan=given.accepted(plan, questions)), lock
    except RunnerError as error:
        error.termination_log = loaded.plan.termination_log
        raise


def _stop_early(log: str) -> None:
    """Until the supervisor takes over, a stop signal ends us at once; PID 1 would ignore it.

    It leaves instead of raising: an exception raised here can end up in a callback of the import machinery,
    which drops it.
    """

    def stop(signum: int, frame: object) -> NoReturn:
        reason = f"asked to stop by {signal.Signals(signum).name} before anything was started"
        give_up()
        last_words.say(reason)
        last_words.write_termination_log(log, reason)
        os._exit(ExitCode.OK)

    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(signum, stop)
