"""Faults that a real engine can have and that no signal gives it, for processes of the CPU engine.

With CPU_ENGINE_FAULTS set, the signals below make the process that gets one misbehave for good.
CPU_ENGINE_SLOW_FIRST is seconds that the first batch takes, computing all the time, as a compiler inside the
process would. With CPU_ENGINE_KEEPS_OUT only processes with a right of root may look into these
(PR_SET_DUMPABLE), as where Yama forbids it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

SPIN = signal.SIGRTMIN + 3
BLOCK = signal.SIGRTMIN + 4


def spin(*received: object) -> None:
    """Turn in a circle in the main thread, as one that waits for a kernel which never ends."""
    while True:
        pass


def block(*received: object) -> None:
    """Wait in the main thread for what never comes, as a collective without its other ranks."""
    never = threading.Lock()
    never.acquire()
    never.acquire()


def install(changes: dict[str, Callable[[Any], None]]) -> None:
    """Do what the environment asks for."""
    if "CPU_ENGINE_FAULTS" in os.environ and threading.current_thread() is threading.main_thread():
        signal.signal(SPIN, spin)
        signal.signal(BLOCK, block)
    if "CPU_ENGINE_KEEPS_OUT" in os.environ:
        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
    if "CPU_ENGINE_SLOW_FIRST" in os.environ:
        changes["sglang.srt.managers.scheduler"] = slow_first


def slow_first(module: Any) -> None:
    """Have the first batch of a scheduler take long."""
    original, late = module.Scheduler.run_batch, [float(os.environ["CPU_ENGINE_SLOW_FIRST"])]

    def run_batch(self: Any, *args: Any, **options: Any) -> Any:
        end = time.monotonic() + (late.pop() if late else 0.0)
        while time.monotonic() < end:
            [bytearray(100_000) for _ in range(100)]
        return original(self, *args, **options)

    module.Scheduler.run_batch = run_batch
