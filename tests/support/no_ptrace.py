"""A program that may not look into processes which keep others out, as Yama or fewer rights have it.

    python -m tests.support.no_ptrace PROGRAM [ARGUMENT …]

The kernel asks the same for a process that is not dumpable (`keep_out`) as Yama does from scope 2 on: the
right CAP_SYS_PTRACE, which root has lost here. A seccomp filter for ptrace is no such thing: /proc/PID/mem
stays open.
"""

from __future__ import annotations

import ctypes
import os
import sys

KEEP_OUT = "import ctypes; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)\n"
"""Python with which a process keeps others out: PR_SET_DUMPABLE (linux/prctl.h)."""
_PR_CAPBSET_DROP, _CAP_SYS_PTRACE = 24, 19


def forbid() -> None:
    """What is executed from here on has no such right; whoever is not root never had it."""
    ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, *map(ctypes.c_ulong, (_CAP_SYS_PTRACE, 0, 0, 0)))


if __name__ == "__main__":
    forbid()
    os.execvp(sys.argv[1], sys.argv[1:])
