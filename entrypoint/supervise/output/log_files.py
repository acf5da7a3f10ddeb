"""One file per process in GLM47_LOG_DIR, and one of what happened to them, with times."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from entrypoint.errors import CannotWriteError

RUNNER = "runner"
"""The name that our own lines carry."""
EVENTS = "events"
"""The name of the file of events: `<log_dir>/<the runner's stem>.events.jsonl`."""


def _file_name(name: str, stems: Mapping[str, str]) -> str:
    if name == EVENTS:
        return f"{stems.get(RUNNER, RUNNER)}.events.jsonl"
    return f"{stems.get(name, name)}.log"


def open_logs(log_dir: str, names: list[str], stems: Mapping[str, str]) -> dict[str, tuple[str, int]]:
    """Name to path and descriptor of its log file, `<log_dir>/<stem>.log`; a name is its own stem by default.

    EVENTS has its own ending.

    CannotWriteError (73) when one cannot be opened. A FIFO without a reader is an error, not a wait.
    """
    opened: dict[str, tuple[str, int]] = {}
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    path = Path(log_dir)
    try:
        path.mkdir(parents=True, exist_ok=True)
        for name in names:
            path = Path(log_dir, _file_name(name, stems))
            opened[name] = (str(path), os.open(path, flags, 0o644))
            os.set_blocking(opened[name][1], True)
    except OSError as error:
        for _, fd in opened.values():
            os.close(fd)
        raise CannotWriteError(
            f"cannot write the logs: {path}: {error.strerror}: give GLM47_LOG_DIR a directory that "
            f"uid {os.getuid()} may write, or leave it empty"
        ) from error
    return opened
