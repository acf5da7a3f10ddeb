"""Asking a Python process itself where it stands, through the hook in it (`prepare.hooked`).

For where nobody may read its memory. One that is stopped by a signal answers nothing, and is not asked.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ASKED = 2.0
"""Seconds that the hook's thread may take; it needs the interpreter's lock."""
SIGNALLED = 1.0
"""Seconds that the signal's handler may take."""
POLL = 0.02
"""Seconds between two looks for an answer."""
_FRAME = re.compile(r'\s*File "(.*)", line (\d+) in (.*)')


def ask(pid: int, place: Path) -> tuple[list[dict[str, Any]], str]:
    """The threads of process `pid`, as py-spy tells them, and how they were had.

    None, and why: it has no hook in `place`, or does not answer. Takes ASKED and SIGNALLED at most.
    """
    answer = place / f"{pid}.threads"
    with contextlib.suppress(FileNotFoundError):
        answer.unlink()
    try:
        # Only the hook's thread waits there: without it this fails.
        os.close(os.open(place / f"{pid}.pipe", os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return [], "it cannot be asked itself"
    if _until(answer.exists, ASKED):
        return [*_told(answer.read_text("utf-8", "replace"))], "it told them itself"
    held = f"it has not let its own threads run for {ASKED:.0f} s"
    frames = place / f"{pid}.frames"
    if not _has_handler(pid, frames):
        return [], held
    before = frames.stat().st_size
    # To the main thread alone: it writes its own frames, which cannot change meanwhile.
    ctypes.CDLL(None).tgkill(pid, pid, signal.SIGWINCH)
    if not _until(lambda: frames.stat().st_size > before and _quiet(frames), SIGNALLED):
        return [], f"{held}, nor answered a signal"
    text = frames.read_bytes()[before:].decode("utf-8", "replace")
    return [{"thread_name": "MainThread", "os_thread_id": pid, "frames": [*_written(text)]}], held


def _has_handler(pid: int, frames: Path) -> bool:
    """Whether SIGWINCH writes to `frames` in that process. Without a handler it would be ignored there."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
        caught = int(status.partition("SigCgt:")[2].split()[0], 16)
        files = [str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()]
    except (OSError, ValueError, IndexError):
        return False
    return bool(caught >> (signal.SIGWINCH - 1) & 1) and str(frames) in files


def _until(condition: Any, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(POLL)
    return True


def _quiet(file: Path) -> bool:
    size = file.stat().st_size
    time.sleep(POLL)
    return file.stat().st_size == size


def _told(text: str) -> Iterator[dict[str, Any]]:
    thread: dict[str, Any] | None = None
    for line in text.splitlines():
        kind, *parts = line.split("\t")
        if kind == "thread" and len(parts) == 2:
            if thread is not None:
                yield thread
            number = int(parts[0]) if parts[0].isdigit() else 0
            thread = {"thread_name": parts[1], "os_thread_id": number, "frames": []}
        elif kind == "frame" and len(parts) == 3 and thread is not None:
            frame = {"name": parts[0], "filename": parts[1], "line": parts[2]}
            thread["frames"].append(frame)
    if thread is not None:
        yield thread


def _written(text: str) -> Iterator[dict[str, Any]]:
    """Frames as faulthandler writes them."""
    for line in text.splitlines():
        if (found := _FRAME.match(line)) is not None:
            yield {"name": found[3], "filename": found[1], "line": found[2]}
