"""Entry point of the command and of the image."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> None:
    """Run the command line, or exec a first word that is not ours."""
    words = sys.argv[1:]
    _obey_stop_signals(0 if words[:1] == ["run"] else 128 + _signal.SIGTERM)
    if words == ["run"]:
        # Without the command line's imports: they are an eighth of the way to the first spawn.
        from entrypoint.run import run

        run(os.environ)
    from entrypoint.commands.cli import COMMANDS, cli

    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        execute(words)
    cli(prog_name="glm47-runner")


def _obey_stop_signals(code: int) -> None:
    """Leave with `code` on SIGTERM from here on; `run` takes over later.

    The kernel drops a signal to PID 1 that has no handler, and `docker stop` would then wait for its KILL: so
    this comes before the imports, which take ten times as long as the interpreter's own start (`signal` and
    `typing` alone double it, hence `_signal`).
    """

    def leave(signum: int, frame: object) -> NoReturn:
        os.write(2, b"glm47-runner: asked to stop by SIGTERM before anything was started\n")
        os._exit(code)

    _signal.signal(_signal.SIGTERM, leave)


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
