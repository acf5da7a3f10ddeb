"""A supervised process: its own session, one output pipe, a marked environment.

The director decides when it starts and stops; here it is only done.
"""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from entrypoint.errors import SHORTAGES, ExitCode
from entrypoint.plan.types import Process
from entrypoint.supervise.process_tree import MARK, dies_with

if TYPE_CHECKING:
    from entrypoint.supervise.output.forwarding import ChildOutput


class SpawnError(Exception):
    """The process could not be started: 127 (not found), 126 (not executable) as a shell, else 75 or 78."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


REMEDIES = {
    **SHORTAGES,
    errno.EACCES: (126, "see `glm47-runner plan`"),
    errno.EPERM: (126, "see `glm47-runner plan`"),
    errno.E2BIG: (ExitCode.CONFIG, "shorten the environment or GLM47_EXTRA_ARGS"),
}
"""What keeps a process from starting, beside a file that is not there: the exit code, and what to do."""


def spawn_error(name: str, error: OSError, what: str) -> SpawnError:
    """Why process `name` cannot be started: `error`, which was about `what` unless it says."""
    code, remedy = REMEDIES.get(error.errno or 0, (127, "see `glm47-runner plan`"))
    return SpawnError(code, f"cannot start {name}: {error.filename or what}: {error.strerror}: {remedy}")


class OutputReader:
    """Lets the supervisor's loop read a child's output."""

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


class Child:
    """One process and what became of its group."""

    def __init__(self, spec: Process) -> None:
        self.spec = spec
        self.pid = 0
        """0: it does not run; its group may."""
        self.pgid: int | None = None
        """The group, which may outlive the process itself; None when nothing is left."""
        self.life = 0
        """Counts the starts: answers of probes belong to one life."""
        self.code: int | None = None
        """Exit code of its last life, 128+n for signal n."""
        self.started_at = self.ended_at = 0.0
        """Seconds since the epoch; 0: never."""
        self.reader: OutputReader | None = None

    def launch(self, pipe_write: int, environ: Mapping[str, str]) -> int:
        """Start the process with `pipe_write` as stdout and stderr; returns its pid, or raises SpawnError."""
        spec = self.spec
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
            raise spawn_error(spec.name, error, spec.argv[0]) from None
        popen.returncode = 0  # the loop reaps: Popen must not wait for the pid on its own
        self.pid = self.pgid = popen.pid
        self.life += 1
        self.code, self.started_at = None, time.time()
        return popen.pid

    def attach(self, output: ChildOutput) -> None:
        """Have the loop read the process's output."""
        self.reader = OutputReader(output)

    def finish(self, status: int) -> int:
        """The process itself was reaped: its exit code. Its output stays open, since its group may write."""
        self.pid, self.code, self.ended_at = 0, exit_code(status), time.time()
        return self.code

    def close_output(self) -> None:
        """Nothing of the process is left: take what is still in the pipe, and close it."""
        if self.reader is not None:
            output, self.reader = self.reader.output, None
            output.drain()
            output.finish()
            os.close(output.fd)
        self.pgid = None


def exit_code(status: int) -> int:
    """A wait status as an exit code: 128+n for signal n."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
