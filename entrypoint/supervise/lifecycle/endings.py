"""What an engine's last lines say of its end: SGLang ends itself by a KILL, so the signal does not tell.

Texts of sglang 0.5.6.post2 to 0.5.23 (managers/tokenizer_manager.py, entrypoints/engine.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum

_DRAINED = re.compile(r"Gracefully exiting\.\.\. Remaining number of requests 0\b")
_CHILD_FAILED = re.compile(r"Received sigquit from a child process|SIGQUIT received\.")


class Ending(str, Enum):
    """Why an engine that was killed by SIGKILL is gone."""

    UNKNOWN = "unknown"
    """Nothing tells: somebody else killed it, or the kernel for want of memory."""
    DRAINED = "drained"
    """It was asked to stop, answered its last request, and ended itself."""
    CHILD_FAILED = "child failed"
    """A process of its own failed, and it ended itself."""


def ending(lines: Sequence[str]) -> Ending:
    """What `lines`, a log's last ones, say."""
    for line in reversed(lines):
        if _CHILD_FAILED.search(line):
            return Ending.CHILD_FAILED
        if _DRAINED.search(line):
            return Ending.DRAINED
    return Ending.UNKNOWN
