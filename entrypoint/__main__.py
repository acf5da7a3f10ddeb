"""Entry point of the command and of the image."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

NAMES = {1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 15: "SIGTERM"}
"""Of the signals that ask to stop: `signal` has names too, and takes long to import."""


def main() -> None:
    """Run the command line, or exec a first word that is not ours."""
    words = sys.argv[1:]
    _open_standard_descriptors()
    if words[:1] in (["run"], ["demo"]):
        _obey_stop_signals(0, (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGQUIT))
    else:
        _obey_stop_signals(128 + _signal.SIGTERM, (_signal.SIGTERM,))
    if words == ["run"]:
        # Without the command line's imports: they are an eighth of the way to the first spawn.
        from entrypoint.run.start import run

        run(os.environ)
    from entrypoint.commands.cli import COMMANDS, cli

    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        execute(words)
    cli(prog_name="glm47-runner")


def _open_standard_descriptors() -> None:
    """Give what was started without standard input, output or error an empty one.

    A socket or a log that is opened later would get its number, and lines would be written into it.
    """
    for descriptor, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            try:
                os.fstat(descriptor)
            except OSError:
                os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            setattr(sys, name, open(descriptor, "w" if descriptor else "r", closefd=False))  # noqa: SIM115


def _obey_stop_signals(code: int, signals: tuple[int, ...]) -> None:
    """Leave with `code` on one of `signals` from here on; `run` takes over later.

    The kernel drops a signal to PID 1 that has no handler, and `docker stop` would then wait for its KILL: so
    this comes before the imports, which take ten times as long as the interpreter's own start (`signal` and
    `typing` alone double it, hence `_signal`). During that start the image has them blocked (its Dockerfile),
    which keeps them for us; children would inherit that.
    """

    def leave(signum: int, frame: object) -> NoReturn:
        try:
            name = NAMES[signum]
            os.write(2, f"glm47-runner: asked to stop by {name} before anything was started\n".encode())
        finally:
            os._exit(code)

    for signum in signals:
        _signal.signal(signum, leave)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, NAMES)


def execute(words: list[str]) -> NoReturn:
    """Become the given command, as the image without an entrypoint would; 127 and 126 as a shell."""
    try:
        os.execvp(words[0], words)
    except FileNotFoundError:
        import difflib

        from entrypoint.commands.cli import COMMANDS

        near = difflib.get_close_matches(words[0], COMMANDS, 1)
        hint = f"did you mean `{near[0]}`?" if near else f"commands are: {', '.join(COMMANDS)}"
        print(f"glm47-runner: cannot run: {words[0]}: no such command: {hint}", file=sys.stderr)
        sys.exit(127)
    except OSError as error:
        print(f"glm47-runner: cannot run: {words[0]}: {error.strerror}: check its mode", file=sys.stderr)
        sys.exit(126)


if __name__ == "__main__":
    main()
