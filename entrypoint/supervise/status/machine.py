"""What the machine is, as far as small files tell: written down once, for whoever looks at the logs later."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

DRIVER = Path("/proc/driver/nvidia/version")


def facts() -> dict[str, object]:
    """Kernel, processors, memory in bytes, and the NVIDIA driver where there is one."""
    system = os.uname()
    found: dict[str, object] = {
        "host": system.nodename,
        "kernel": system.release,
        "architecture": system.machine,
        "processors": os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }
    with suppress(OSError):
        found["driver"] = DRIVER.read_text(errors="replace").splitlines()[0]
    return found
