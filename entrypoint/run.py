"""`run`: settings, plan, prepare, supervise, exit code. Reads like the table of contents it is."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from entrypoint import last_words
from entrypoint.aside import aside, give_up
from entrypoint.errors import CannotWriteError, ConfigError, ExitCode, ModelError, RunnerError, shortage
from entrypoint.late import late_dataclasses
from entrypoint.leave import leave, tell_job
from entrypoint.settings import early
from entrypoint.settings.deferred import defer

if TYPE_CHECKING:
    from entrypoint.load import Loaded
    from entrypoint.plan.types import Plan
    from entrypoint.supervise.lifecycle.verdicts import Verdict

DEFAULT_TERMINATION_LOG = "/dev/termination-log"
FLUSH = 2.0
"""Seconds that the last lines get to reach a reader of our standard output."""
_M_ARENA_MAX = -8
"""mallopt(3)'s number for it (glibc's malloc.h)."""


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
        verdict = supervise(loaded.plan, dict(loaded.environ), lock, on_ready)
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
    from entrypoint.prepare import leftovers, run_dir
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
            prepare(loaded.plan)
            plan = with_patched_sources(loaded.plan, loaded.environ)
            plan = with_flashinfer(plan, loaded.environ)
            return replace(loaded, plan=given.accepted(plan, questions)), lock
    except RunnerError as error:
        error.termination_log = loaded.plan.termination_log
        raise


def import_supervisor() -> None:
    """Load what supervising needs, while the plan is being made."""
    import entrypoint.supervise.daemon
    import entrypoint.supervise.status.health  # noqa: F401


def prepare(plan: Plan) -> None:
    """Check what must be there and correct the files that the plan names. Idempotent.

    Raises ModelError (66), CannotWriteError and PatchError (73).
    """
    write_files(plan)
    if plan.model_error:
        raise ModelError(plan.model_error)
    if plan.needs_model:
        from entrypoint.node.model import directory
        from entrypoint.prepare import model_view

        found = directory.inspect(plan.model_source, weights=plan.needs_weights)
        if found.facts.error:
            raise ModelError(found.facts.error)
        if plan.model_path != plan.model_source:
            view, bos = Path(plan.model_path), plan.bos_token_id
            model_view.prepare(plan.model_source, view, bos_token_id=bos)


def write_files(plan: Plan) -> None:
    """Write the files that a process of the plan reads. CannotWriteError (73)."""
    for file in plan.job.files if plan.job is not None else ():
        path = Path(file.path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file.content)
        except OSError as error:
            raise CannotWriteError(
                f"cannot write {path}: {error.strerror}: give GLM47_RUN_DIR a directory that "
                f"uid {os.getuid()} may write"
            ) from None


def with_patched_sources(plan: Plan, environ: Mapping[str, str]) -> Plan:
    """Make the plan's source edits; the engine's processes get the variables that an overlay needs.

    Raises PatchError and CannotWriteError (73).
    """
    if plan.source_patch is None:
        return plan
    from entrypoint.prepare.patches.for_plan import patch

    plan, done = patch(plan, environ)
    lines = [f"patch {edit.line}" for edit in done.edits] if done else []
    return replace(plan, notes=(*plan.notes, *lines))


def with_flashinfer(plan: Plan, environ: Mapping[str, str]) -> Plan:
    """Let FlashInfer find what it would write into its own packages. Errors: `make_usable`'s."""
    if plan.flashinfer is None:
        return plan
    from entrypoint.prepare.flashinfer.for_plan import make_usable

    plan, lines = make_usable(plan, environ)
    return replace(plan, notes=(*plan.notes, *lines))


def _stay_small() -> None:
    """Do without what most runners never use and would keep for as long as they run: 9 MB."""
    import ctypes

    # OpenSSL, of which httpx takes names: it is loaded for the first connection with TLS.
    defer("ssl", kinds=("SSLContext", "SSLSocket"))
    defer("hashlib", "md5", "sha1", "sha256", "sha512")
    # httpx's own command line, with click; names that are not ASCII.
    sys.modules["httpx._main"] = None  # type: ignore[assignment]
    defer("idna")
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        # One heap for all threads: glibc gives each prober its own.
        libc.mallopt(_M_ARENA_MAX, 1)


def supervise(
    plan: Plan, environ: dict[str, str], lock: int, on_ready: Callable[[Plan], str] | None = None
) -> Verdict:
    """Run the plan's processes to their end. The last line of our output is the reason.

    `lock` is the run directory's, and given back.
    """
    from entrypoint.plan.types import to_jsonable
    from entrypoint.prepare import run_dir
    from entrypoint.supervise import ports, process_tree
    from entrypoint.supervise.daemon import Daemon
    from entrypoint.supervise.status import health, machine, report
    from entrypoint.supervise.supervisord.control import ControlSocket

    _stay_small()
    listener = health.listen(plan.health.host, plan.health.number)
    ports.must_be_free(endpoint for endpoint in plan.ports if endpoint.process != "health")
    control = ControlSocket(Path(plan.run_dir) / "supervisor.sock")
    for directory in plan.fresh_dirs:
        shutil.rmtree(directory, ignore_errors=True)
    warnings = list(plan.warnings)
    try:
        process_tree.become_subreaper()
    except OSError as error:
        warnings.append(f"what a process leaves behind may outlive it: {error}: run as PID 1 if you can")

    def when_ready(plan: Plan) -> str | None:
        from entrypoint.supervise.status import starts

        starts.remember(plan, lambda: daemon.snapshot)
        return on_ready(plan) if on_ready is not None else None

    daemon = Daemon(plan, environ, control, when_ready)
    log = plan.termination_log
    # Should we be killed, this is all that is left of us.
    daemon.watcher.on_finding = lambda text: last_words.write_termination_log(log, text)
    daemon.say(report.describe(plan))
    for line in (*(f"warning: {warning}" for warning in warnings), *plan.notes):
        daemon.say(line)
    daemon.handle_signals()

    files = None
    if plan.job is not None:
        from entrypoint.supervise.status.job_files import JobFiles

        files = JobFiles(plan, lambda: daemon.snapshot)
    if daemon.fate is not None:
        daemon.fate.on_failure = lambda v: tell_job(environ, v.code, v.reason, plan)

    views = health.Views(lambda: daemon.snapshot, daemon.turned, plan, daemon.watcher.last_lines)

    def after_first_spawn() -> None:
        health.serve(listener, views)
        daemon.output.record({"plan": to_jsonable(plan)})
        daemon.output.record({"machine": machine.facts()})
        if files is not None:
            files.start()

    verdict = daemon.run_plan(after_first_spawn)
    views.finish(verdict.code, verdict.reason)
    control.close()
    if files is not None and daemon.fate is not None:
        daemon.fate.linger()
        files.close()
    run_dir.unlock(lock)
    daemon.say(verdict.reason)
    daemon.output.close(time.monotonic() + FLUSH)
    return verdict


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
