"""Where each process of an engine stands: Python stacks by py-spy, and what the kernel says it waits in.

Read from outside, so that it works for a process that is stopped or stuck in native code; where the kernel
forbids that (ptrace), its own words remain. Nothing of it runs while all is well.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from entrypoint.base.foreign import from_json
from entrypoint.plan.run_files import STACK_HOOK
from entrypoint.supervise import process_tree
from entrypoint.supervise.watchdog import asked, collectives
from entrypoint.supervise.watchdog.collectives import Collective

DUMP = 6.0
"""Seconds that one process's stacks may take."""
ALL = 15.0
"""Seconds that all of an engine's may."""
LEAST = 1.0
"""Seconds that must be left for native stacks of one more process, which is paused for them."""
STOPPED = ("T", "t")
PROCESSES, THREADS, FRAMES = 64, 64, 60
"""So many of each at most; frames of one thread."""
GPUS = 4.0
"""Seconds that the driver may take to say what the GPUs do."""
SIZE = 2 << 20
"""Characters of a file at most."""
SHOWN = 4
"""Frames that are told in one line, the innermost first."""
COLLECTIVES = ("distributed_c10d.py", "pynccl.py", "parallel_state.py", "custom_all_reduce.py")
"""Files whose frames say that a rank waits for the others, the innermost frame of them saying in what."""
_WRAPPERS = ("wrapper", "inner", "_wait", "wait")


@dataclass(frozen=True)
class Place:
    """Where one process stands."""

    title: str
    pid: int
    state: str
    """One letter (proc_pid_stat(5))."""
    waits_in: str
    """The kernel function that its main thread waits in; empty: not known, or it does not wait."""
    frames: tuple[str, ...]
    """Of its main thread, the innermost first; empty: not to be had."""
    collective: str
    """The collective that it waits in; empty: it is in none, or that is not known."""

    @property
    def scheduler(self) -> bool:
        """Whether it computes the tokens of a rank."""
        return "::scheduler" in self.title

    def __str__(self) -> str:
        if self.state in STOPPED:
            doing = "is stopped by a signal"
        elif self.collective:
            doing = f"waits in {self.collective}"
        else:
            doing = f"waits in {self.waits_in}" if self.waits_in else "runs" if self.state == "R" else "waits"
        return doing + (f": {' < '.join(self.frames[:SHOWN])}" if self.frames else "")


def collect(
    name: str,
    pid: int,
    file: Path,
    environ: Mapping[str, str] = MappingProxyType({}),
    hooks: Path | None = None,
) -> list[Place]:
    """Look at all processes below `pid`, leave everything in `file`, and return where each stands.

    `environ`: the engine's own variables; `hooks`: where its processes can be asked themselves. Takes ALL
    seconds at most, and GPUS and collectives.WAIT besides. OSError when the file cannot be written.
    """
    end = time.monotonic() + ALL
    places, texts = [], []
    seen_from_outside = True
    last, unknown = collectives.ask(environ)
    for each in [pid, *_below(pid)][:PROCESSES]:
        left = end - time.monotonic()
        threads, why = _dump(each, min(DUMP, left)) if left > 0 else ([], "there was no time left")
        if not threads and left > 0 and hooks is not None:
            threads, told = _asked(each, hooks)
            seen_from_outside &= not threads
            why = f"{why}; {told}"
        place = _place(each, threads, name)
        if place is None:
            continue
        place = with_collective(place, last)
        places.append(place)
        texts.append(_text(place, threads, why))
    for place in (p for p in places if seen_from_outside and p.scheduler and p.state not in STOPPED):
        left = end - time.monotonic()
        if left > LEAST:
            threads, why = _dump(place.pid, min(DUMP, left), native=True)
            texts.append(f"with native frames: {_text(place, threads, why)}")
    texts.append(
        "".join(f"{line}\n" for line in [*(f"rank {c.rank}: {c}" for c in last), *unknown, *_gpus()])
    )
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    file.write_text(f"stacks of {name} at {stamp}\n\n{''.join(texts)}"[:SIZE])
    return places


def with_collective(place: Place, last: Sequence[Collective]) -> Place:
    """The same, naming the collective by its number where its rank's recorder has one that is not over."""
    rank = place.title.rpartition("TP")[2].partition("_")[0].partition(" ")[0]
    number = int(rank) if rank.isdigit() else 0
    waits = [c for c in last if c.waits and c.rank == number]
    if not place.scheduler or place.state in STOPPED or not waits:
        return place
    return replace(place, collective=str(min(waits, key=lambda c: c.number)))


def _gpus() -> list[str]:
    """What each GPU does now; nothing where there is none."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return []
    command = [sys.executable, "-m", "entrypoint.node.machine.now"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GPUS, check=False)
    except subprocess.TimeoutExpired as error:
        told = error.stdout.decode() if isinstance(error.stdout, bytes) else ""
        return [*told.splitlines(), f"the driver does not answer for {GPUS:.0f} s"]
    return done.stdout.splitlines()


def _below(pid: int) -> Iterator[int]:
    for child in process_tree.children(pid):
        yield child
        yield from _below(child)


def _dump(pid: int, seconds: float, *, native: bool = False) -> tuple[list[dict[str, Any]], str]:
    """The threads of a Python process; empty, and why, where they cannot be had."""
    program = Path(sys.executable).with_name("py-spy")
    # Without stopping it, where that will do: one that a signal stopped would never answer.
    how = "--native" if native else "--nonblocking"
    command = [str(program), "dump", "--json", how, "--pid", str(pid)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
        found = from_json(done.stdout) if done.returncode == 0 and done.stdout.strip() else None
    except subprocess.TimeoutExpired:
        return [], f"py-spy took more than {seconds:.0f} s"
    except (OSError, ValueError) as error:
        return [], f"py-spy: {error}"
    if isinstance(found, list):
        return [t for t in found if isinstance(t, dict) and not _ours(t)][:THREADS], ""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    # Its first line asks whether the process runs; why it could not look is below that.
    line = next((x for x in lines if "ermission" in x), lines[0] if lines else f"exit code {done.returncode}")
    return [], f"py-spy: {line.removeprefix('0: ')}"


def _ours(thread: dict[str, Any]) -> bool:
    """The hook's own thread."""
    frames = thread.get("frames") or [{}]
    return str(frames[0].get("filename")).endswith(f"/{STACK_HOOK}/site/sitecustomize.py")


def _asked(pid: int, hooks: Path) -> tuple[list[dict[str, Any]], str]:
    """What the process itself says; one that is stopped says nothing."""
    stat = process_tree.read_stat(pid)
    if stat is not None and stat.state in STOPPED:
        return [], "it is stopped by a signal, and answers nothing until SIGCONT"
    return asked.ask(pid, hooks)


def _place(pid: int, threads: list[dict[str, Any]], name: str) -> Place | None:
    task = Path(f"/proc/{pid}/task/{pid}")
    try:
        state = (task / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
        where = (task / "wchan").read_text().partition(".")[0]
    except OSError:
        return None
    if state in "ZX":
        return None
    main = next((t for t in threads if t.get("thread_name") == "MainThread"), threads[0] if threads else {})
    frames = [f for f in main.get("frames", ()) if isinstance(f, dict)][:FRAMES]
    return Place(
        title=process_tree.title(pid) or name,
        pid=pid,
        state=state,
        waits_in="" if where == "0" else where,
        frames=tuple(_frame(f) for f in frames),
        collective=_collective(frames),
    )


def _frame(frame: dict[str, Any]) -> str:
    file = str(frame.get("short_filename") or frame.get("filename") or "?")
    return f"{frame.get('name')} ({Path(file).name}:{frame.get('line')})"


def _collective(frames: list[dict[str, Any]]) -> str:
    inside = [f for f in frames if Path(str(f.get("filename"))).name in COLLECTIVES]
    return next((str(f["name"]) for f in inside if f["name"] not in _WRAPPERS), "")


def _text(place: Place, threads: list[dict[str, Any]], why: str) -> str:
    lines = [f"{place.title} (pid {place.pid}): {place}"]
    for name in ("wchan", "syscall", "stack"):
        try:
            lines.append(
                f"  /proc/{place.pid}/{name}: {Path(f'/proc/{place.pid}/{name}').read_text().strip()}"
            )
        except OSError as error:
            lines.append(f"  /proc/{place.pid}/{name}: {error.strerror}")
    if why:
        lines.append(f"  Python stacks: {why}" if threads else f"  no Python stacks: {why}")
    for thread in threads:
        number = thread.get("os_thread_id") or thread.get("thread_id")
        lines.append(f"  thread {number} {thread.get('thread_name')}")
        frames = [frame for frame in thread.get("frames", ()) if isinstance(frame, dict)]
        lines += [f"    {_frame(frame)}" for frame in frames[:FRAMES]]
    return "\n".join(lines) + "\n\n"
