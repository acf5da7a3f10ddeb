"""Tells the runner where this process stands, when it asks: `sitecustomize` of an engine's Python processes.

Copied as it is, and run by every interpreter that has its directory on PYTHONPATH: it imports none of
ours. A thread waits, without the interpreter's lock and without a descriptor, until somebody opens its pipe;
it then writes down what all threads do, with the lock, so that nothing changes meanwhile. Where the lock is
never free, SIGWINCH has the main thread write its own frames (faulthandler): who has no handler ignores it.
Nothing here may keep an engine from starting or working.
"""

import _thread
import os
import signal
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
PLACE = os.path.dirname(HERE)
"""Of each process, by its id: `.pipe` that it waits at, `.threads` that it answers, `.frames` of a signal."""
FRAMES = 60
_YAMA = "/proc/sys/kernel/yama/ptrace_scope"
_PR_SET_PTRACER = 0x59616D61  # linux/prctl.h


def _announce() -> None:
    """Once for each process: when its interpreter begins, or after a fork."""
    try:
        own = f"{PLACE}/{os.getpid()}"
        for ending in (".pipe", ".threads", ".frames"):
            if os.path.lexists(own + ending):  # of an earlier process of that id
                os.unlink(own + ending)
        os.mkfifo(f"{own}.pipe", 0o600)
        _let_us_look()
        _thread.start_new_thread(_wait, (own, _thread.get_ident()))
        import faulthandler

        file = os.open(f"{own}.frames", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        # Frames of other threads may change while they are read: that has ended processes.
        faulthandler.register(signal.SIGWINCH, file=file, all_threads=False)
    except Exception:
        return  # the runner says that it cannot be asked


def _let_us_look() -> None:
    """Where Yama lets only ancestors look, let those look that the runner starts."""
    with open(_YAMA) if os.path.exists(_YAMA) else open(os.devnull) as file:
        if file.read().strip() != "1":
            return
    import ctypes

    with open(f"{PLACE}/runner") as file:
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(int(file.read())), *[ctypes.c_ulong(0)] * 3)


def _wait(own: str, main: int) -> None:
    """Answer whoever opens the pipe, for ever. `main`: the main thread."""
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            os.close(os.open(f"{own}.pipe", os.O_RDONLY))
            text = _threads(main)
            file = os.open(f"{own}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.write(file, text.encode("utf-8", "replace"))
            finally:
                os.close(file)
            os.rename(f"{own}.new", f"{own}.threads")
    except Exception:
        return  # the directory is gone


def _threads(main: int) -> str:
    """A line for each thread and each of its frames, the innermost first; parts are parted by tabs."""
    known = getattr(sys.modules.get("threading"), "_active", {})
    lines = []
    for ident, frame in sys._current_frames().items():
        if ident == _thread.get_ident():
            continue
        thread = known.get(ident)
        number = getattr(thread, "native_id", None) or 0
        name = "MainThread" if ident == main else getattr(thread, "name", "")
        lines.append(f"thread\t{number}\t{name}")
        each = frame
        for _ in range(FRAMES):
            if each is None:
                break
            code = each.f_code
            name = getattr(code, "co_qualname", code.co_name)
            lines.append(f"frame\t{name}\t{code.co_filename}\t{each.f_lineno or 0}")
            each = each.f_back  # type: ignore[assignment]
    return "\n".join(lines) + "\n"


def _run_hidden() -> None:
    """Run the sitecustomize that this one hides, under its own name."""
    import importlib.machinery
    import importlib.util

    entries = [os.path.abspath(entry or os.getcwd()) for entry in sys.path]
    after = sys.path[entries.index(HERE) + 1 :] if HERE in entries else []
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", after)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


if __name__ == "sitecustomize":
    _announce()
    os.register_at_fork(after_in_child=_announce)
    _run_hidden()
