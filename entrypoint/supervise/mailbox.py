"""What other threads have for the supervisor's loop, and how they wake it."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable

from entrypoint.supervise.lifecycle.actions import Action

Event = Callable[[float], Iterable[Action]]
"""Called in the loop with the time (monotonic seconds); what it returns is carried out."""


class Mailbox:
    """All but `events` is safe from any thread."""

    def __init__(self) -> None:
        self.fd, self.wake_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        """What the loop waits for, and what is written to."""
        self.events: deque[Event] = deque()

    def post(self, event: Event) -> None:
        """Have the loop call `event`."""
        self.events.append(event)
        self.wake()

    def wake(self) -> None:
        """End the loop's sleep."""
        with contextlib.suppress(BlockingIOError):  # full: it is awake already
            os.write(self.wake_fd, b"\0")
