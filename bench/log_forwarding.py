"""Forwarding 1,000,000 log lines: this runner's output code against supervisord 4.3.0, in one run.

    python bench/log_forwarding.py [--lines N] [--rounds R] [--format json]

Each round, one child writes the same lines, once with Python's print and once raw, in writes of
64 KiB from memory, which is a test of copying rather than of any real program; what the forwarder
prints goes through a pipe to `cat` and so to a file (and, second, straight to a file). Measured
from the child's first write to the moment the file holds everything; then every line is looked for.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHILD = """
import os, sys, time
count, stamp = int(sys.argv[1]), sys.argv[2]
data = b"".join(b"line %07d %s\\n" % (i, b"x" * 66) for i in range(count))
with open(stamp, "w") as file:
    file.write(repr(time.monotonic()))
if sys.argv[3] == "print":
    for line in data.decode().splitlines():
        print(line)
    sys.stdout.flush()
view = memoryview(data if sys.argv[3] == "raw" else b"")
while view:
    view = view[os.write(1, view[:65536]):]
if len(sys.argv) > 4:
    time.sleep(600)
"""


def forward(argv: list[str], log_format: str) -> None:
    """A child's output through `Output`, in the poll loop it is made for."""
    sys.path.insert(0, str(ROOT))
    from entrypoint.run.supervised import stay_small
    from entrypoint.supervise.output.forwarding import Output, make_pipe

    stay_small()
    read_end, write_end = make_pipe()
    wake_read, wake_write = os.pipe()
    for fd in (wake_read, wake_write):
        os.set_blocking(fd, False)

    def wake() -> None:
        os.write(wake_write, b"x")

    output = Output(["child"], log_format=log_format, on_space=wake)
    child = output.child("child", read_end)
    process = subprocess.Popen(argv, stdout=write_end, stderr=write_end, stdin=subprocess.DEVNULL)
    os.close(write_end)
    selector = selectors.DefaultSelector()
    selector.register(wake_read, selectors.EVENT_READ)
    selector.register(read_end, selectors.EVENT_READ)
    reading = True
    while True:
        if child.congested == reading:
            reading = not reading
            (selector.register if reading else selector.unregister)(
                read_end, *(selectors.EVENT_READ,) * reading
            )
        ready = [key.fd for key, _ in selector.select(1.0)]
        if wake_read in ready:
            os.read(wake_read, 4096)
        if read_end in ready and not child.handle_read():
            break
    process.wait()
    output.close(time.monotonic() + 60)


def supervisord(folder: Path, count: int, stamp: Path, style: str) -> list[str]:
    """The command line of a supervisord that forwards the child to its standard output."""
    script = folder / "child.py"
    script.write_text(CHILD)
    config = folder / "supervisord.conf"
    config.write_text(
        f"[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\nsilent=true\n"
        f"pidfile={folder}/pid\n"
        f"[program:child]\ncommand={sys.executable} {script} {count} {stamp} {style} stay\n"
        "autorestart=false\nstartsecs=0\nstdout_logfile=/dev/stdout\nstdout_logfile_maxbytes=0\nredirect_stderr=true\n"
    )
    return [sys.executable, "-m", "supervisor.supervisord", "-c", str(config)]


def measure(which: str, count: int, log_format: str, through: str, style: str) -> tuple[float, int, int]:
    """Seconds, lines lost, lines joined or torn."""
    with tempfile.TemporaryDirectory() as name:
        folder, stamp, out = Path(name), Path(name, "stamp"), Path(name, "out")
        if which == "supervisord":
            argv = supervisord(folder, count, stamp, style)
        else:
            argv = [
                sys.executable,
                __file__,
                "--forward",
                str(count),
                str(stamp),
                style,
                "--format",
                log_format,
            ]
        size = count * 80 + (count * len("child  | ") if which != "supervisord" else 0)
        with out.open("wb") as file:
            pipe = (
                subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file) if through == "pipe" else None
            )
            runner = subprocess.Popen(argv, stdout=pipe.stdin if pipe else file, stderr=subprocess.DEVNULL)
            if pipe and pipe.stdin:
                pipe.stdin.close()
            deadline = time.monotonic() + 120
            # The runner's JSON lines are longer: the end is the forwarder's own exit.
            by_size = log_format == "text" or which == "supervisord"
            while out.stat().st_size < size if by_size else runner.poll() is None:
                if time.monotonic() > deadline or runner.poll() not in (None, 0):
                    break
                time.sleep(0.002)
            ended = time.monotonic()
            if which == "supervisord":
                runner.terminate()
            runner.wait()
            if pipe:
                pipe.wait()
        seconds = ended - float(stamp.read_text())
        wanted = {b"line %07d " % i + b"x" * 66 for i in range(count)}
        good = strange = 0
        for line in out.read_bytes().split(b"\n")[:-1]:
            if log_format == "json" and which != "supervisord":
                line = json.loads(line)["line"].encode()
            elif which != "supervisord":
                line = line.removeprefix(b"child  | ")
            if line in wanted:
                wanted.discard(line)
                good += 1
            else:
                strange += 1
        return seconds, count - good, strange


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--format", default="text", choices=["text", "json"])
    parser.add_argument("--forward", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.forward:
        forward([sys.executable, "-c", CHILD, *args.forward], args.format)
        return
    for style in ("print", "raw"):
        for through in ("pipe", "file"):
            results: dict[str, list[tuple[float, int, int]]] = {"supervisord": [], "runner": []}
            # Taking turns, so that what else the machine does falls on both alike.
            for _ in range(args.rounds):
                for which, rounds in results.items():
                    rounds.append(measure(which, args.lines, args.format, through, style))
            rates = {}
            for which, rounds in results.items():
                median = statistics.median(seconds for seconds, _, _ in rounds)
                rates[which] = args.lines / median
                lost, strange = max(r[1] for r in rounds), max(r[2] for r in rounds)
                print(
                    f"{style:5} {through:4} {which:11} median {median:6.3f} s {rates[which] / 1e6:6.2f} M/s  "
                    f"lost {lost}  joined or foreign {strange}",
                    flush=True,
                )
            print(f"{style:5} {through:4} ratio {rates['runner'] / rates['supervisord']:.2f}")


if __name__ == "__main__":
    main()
