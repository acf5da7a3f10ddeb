"""The plan, supervised to its end: what is told on the way, and what is there besides the processes."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from entrypoint.base import last_words
from entrypoint.run.leave import tell_job, tell_pod
from entrypoint.settings.deferred import defer

if TYPE_CHECKING:
    from entrypoint.plan.types import Plan
    from entrypoint.supervise.lifecycle.verdicts import Verdict

FLUSH = 2.0
"""Seconds that the last lines get to reach a reader of our standard output."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""mallopt(3)'s numbers for them (glibc's malloc.h)."""
LARGE, SPARE = 512 << 10, 1 << 20
"""Bytes of a buffer that is fetched from the kernel for itself, and of free memory that is kept."""


def import_supervisor() -> None:
    """Load what supervising needs, while the plan is being made."""
    import entrypoint.supervise.daemon
    import entrypoint.supervise.status.health  # noqa: F401


def stay_small() -> None:
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
        # A read of output is larger than what glibc would else fetch from the kernel and give back each time.
        libc.mallopt(_M_MMAP_THRESHOLD, LARGE)
        libc.mallopt(_M_TRIM_THRESHOLD, SPARE)


def supervise(
    plan: Plan,
    environ: dict[str, str],
    lock: int,
    on_ready: Callable[[Plan], str] | None = None,
    versions: Mapping[str, str] = MappingProxyType({}),
) -> Verdict:
    """Run the plan's processes to their end. The last line of our output is the reason.

    `lock` is the run directory's, and given back; `versions` are the engine's, for whoever reads the logs.
    """
    from entrypoint.plan.types import to_jsonable
    from entrypoint.prepare import run_dir
    from entrypoint.supervise import ports, process_tree
    from entrypoint.supervise.daemon import Daemon
    from entrypoint.supervise.status import health, machine, report
    from entrypoint.supervise.supervisord.control import ControlSocket

    stay_small()
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
        daemon.output.record({"machine": machine.facts(), "engine": {**versions}})
        if files is not None:
            files.start()

    verdict = daemon.run_plan(after_first_spawn)
    views.finish(verdict.code, verdict.reason)
    control.close()
    if files is not None and daemon.fate is not None:
        daemon.fate.linger()
        files.close()
    run_dir.unlock(lock)
    if (note := tell_pod(environ, verdict.code, verdict.reason)) is not None:
        daemon.say(note)
    daemon.say(verdict.reason)
    daemon.output.close(time.monotonic() + FLUSH)
    return verdict
