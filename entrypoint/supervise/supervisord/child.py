"""A supervised process: supervisor's Subprocess with its own session, one output pipe, a marked environment.

The director decides when it starts and stops; here it is only done.
"""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING, Any

from supervisor.options import ProcessConfig, ProcessGroupConfig
from supervisor.process import Subprocess
from supervisor.states import ProcessStates

from entrypoint.plan.types import Process
from entrypoint.supervise.process_tree import MARK, dies_with

if TYPE_CHECKING:
    from entrypoint.supervise.output.forwarding import ChildOutput


class SpawnError(Exception):
    """The process could not be started: `code` as a shell gives it (127 not found, 126 not executable)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class ChildConfig(ProcessConfig):
    """supervisor's description of a process, made from the plan's. Nothing passes through an ini file."""

    def __init__(self, options: Any, spec: Process) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            options,
            name=spec.name, uid=None, command=" ".join(spec.argv), directory=spec.cwd, umask=None,
            priority=999, autostart=False, autorestart=False, startsecs=0, startretries=0,
            stdout_logfile=None, stdout_capture_maxbytes=0, stdout_events_enabled=False,
            stdout_syslog=False, stdout_logfile_backups=0, stdout_logfile_maxbytes=0,
            stderr_logfile=None, stderr_capture_maxbytes=0, stderr_logfile_backups=0,
            stderr_logfile_maxbytes=0, stderr_events_enabled=False, stderr_syslog=False,
            stopsignal=15, stopwaitsecs=spec.grace, stopasgroup=False, killasgroup=True,
            exitcodes=[0], redirect_stderr=True,
        )  # fmt: skip
        self.spec = spec

    def make_process(self, group: Any = None) -> Child:
        process = Child(self)  # type: ignore[no-untyped-call]
        process.group = group
        return process


def group_config(options: Any, spec: Process) -> ProcessGroupConfig:
    """A group of one: supervisor addresses processes by group."""
    return ProcessGroupConfig(options, spec.name, 999, [ChildConfig(options, spec)])


class OutputDispatcher:
    """Lets supervisor's loop read a child's output."""

    closed = False

    def __init__(self, output: ChildOutput) -> None:
        self.output = output

    def readable(self) -> bool:
        """False while nobody takes what was read: the child's pipe then fills instead of our memory."""
        return not self.closed and not self.output.congested

    def writable(self) -> bool:
        return False

    def handle_read_event(self) -> None:
        if not self.output.handle_read():
            self.closed = True


class Child(Subprocess):
    """One process and what became of its group."""

    config: ChildConfig
    output: OutputDispatcher | None = None
    life = 0
    """Counts the starts: answers of probes belong to one life."""
    pgid: int | None = None
    """The group, which may outlive the process itself; None when nothing is left."""

    def launch(self, pipe_write: int, environ: dict[str, str]) -> int:
        """Start the process with `pipe_write` as stdout and stderr; returns its pid, or raises SpawnError."""
        spec = self.config.spec
        env = {k: v for k, v in environ.items() if k not in spec.unset_env}
        env |= spec.env
        env[MARK] = spec.name
        try:
            popen = subprocess.Popen(
                spec.argv,
                stdin=subprocess.DEVNULL,
                stdout=pipe_write,
                stderr=pipe_write,
                cwd=spec.cwd,
                env=env,
                start_new_session=True,
                restore_signals=True,
                preexec_fn=dies_with(os.getpid()),
            )
        except OSError as error:
            code = 126 if isinstance(error, PermissionError) else 127
            where = error.filename or spec.argv[0]
            reason = f"cannot start {spec.name}: {where}: {error.strerror}: see `glm47-runner plan`"
            raise SpawnError(code, reason) from None
        popen.returncode = 0  # supervisor's loop reaps: Popen must not wait for the pid on its own
        self.pid = self.pgid = popen.pid
        self.life += 1
        self.state = ProcessStates.RUNNING
        self.laststart = int(time.time())
        self.exitstatus = None
        self.config.options.pidhistory[popen.pid] = self
        return popen.pid

    def attach(self, output: ChildOutput) -> None:
        """Have the loop read the process's output."""
        self.output = OutputDispatcher(output)
        self.dispatchers = {output.fd: self.output}

    def finish(self, pid: int, sts: int) -> None:
        """The process itself was reaped. Its output stays open: others of its group may still write."""
        self.pid = 0
        self.exitstatus = exit_code(sts)
        self.state = ProcessStates.EXITED

    def close_output(self) -> None:
        """Nothing of the process is left: take what is still in the pipe, and close it."""
        if self.output is not None:
            self.dispatchers = {}
            output = self.output.output
            output.drain()
            output.finish()
            os.close(output.fd)
            self.output = None
        self.pgid = None

    def transition(self) -> None:
        """supervisor starts and restarts here; ours are the director's decisions."""


def exit_code(status: int) -> int:
    """A wait status as an exit code: 128+n for signal n."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
