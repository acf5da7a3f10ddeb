"""Random kills at random moments, over and over: is anything left, is a code wrong, does anything hang?

    python -m tests.chaos [--count N] [--seed N] [--stack standin|mocker]

Every schedule is made from its seed alone: which container, when and to whom which signals are sent, and
whether it is asked to stop in between. `standin`: processes of a plan made by hand (a web server, a family
with a session of its own, one that ignores signals, one that wipes its environment). `mocker`: the real stack
with Dynamo's mocker. Judged are the exit code (entrypoint/errors.py), the time until the end, and the
processes that are left a moment after it; after a KILL of the runner itself, once the next start in its run
directory is there.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from entrypoint.commands.demo.model import make_demo_model
from entrypoint.plan.types import HttpProbe, Plan
from tests.support import stack
from tests.support.plans import plan, process, server
from tests.support.runner import Runner, free_port

MARK = "CHAOS_OF"
"""Variable that all processes of a schedule have; not of the runner's own, which refuses unknown ones."""
BUDGET = 12.0
"""GLM47_STOP_TIMEOUT, in seconds."""
LATE = 8.0
"""Seconds that an end may take beyond the budget: this machine does other things too."""
READY = 60.0
"""Seconds until the real stack serves, at most; most schedules wait for that, others begin while it loads."""
LINGER = 5.0
"""Seconds after the end in which everything must be gone."""
SIGNALS = (
    signal.SIGKILL,
    signal.SIGTERM,
    signal.SIGSEGV,
    signal.SIGSTOP,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGCONT,
)
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
PR_SET_CHILD_SUBREAPER = 36


@dataclass
class Outcome:
    """What came of one schedule."""

    seed: int
    code: int | None
    """None: it did not end in time."""
    sent: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    last: str = ""
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        sent = ", ".join(self.sent)
        return f"seed {self.seed}: {'; '.join(self.faults)}; code {self.code}; sent: {sent}; {self.last}"


def marked(mark: str) -> list[int]:
    """Living processes that have `mark` in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if f"{MARK}={mark}\0".encode() in (entry / "environ").read_bytes() + b"\0":
                    found.append(int(entry.name))
    return found


def title(pid: int) -> str:
    """Its command line, short."""
    with contextlib.suppress(OSError):
        return (
            Path(f"/proc/{pid}/cmdline")
            .read_bytes()
            .replace(b"\0", b" ")
            .decode(errors="replace")
            .partition("\n")[0][:80]
        )
    return "gone"


SERVES = """
import http.server, sys
class Yes(http.server.BaseHTTPRequestHandler):
    log_message = lambda *_: None
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Yes).serve_forever()
"""


def hand_made(rng: random.Random) -> Plan:
    """A container of stand-ins."""
    port = free_port()
    web = server(
        "web", argv=(sys.executable, "-c", SERVES, str(port)), ready=HttpProbe(f"http://127.0.0.1:{port}/"),
        silent_timeout=15.0, grace=4.0,
    )  # fmt: skip
    stubborn = server(
        "stubborn", argv=("sh", "-c", "trap '' TERM INT HUP; while :; do sleep 0.2; done"), grace=1.0
    )
    family = process("family", argv=("sh", "-c", "setsid sleep 1000 & sleep 1000 & wait"), grace=3.0)
    wiped = server("wiped", argv=("sh", "-c", "env -i setsid sleep 1000 & exec sleep 1000"), grace=3.0)
    some = [web, family, *rng.sample([stubborn, wiped], rng.randint(0, 2))]
    return plan(*some, stop_timeout=BUDGET, max_restarts=rng.choice([0, 1, 3]))


@contextlib.contextmanager
def container(kind: str, rng: random.Random, mark: str, directory: Path, model: Path) -> Iterator[Runner]:
    """A runner whose processes carry `mark`."""
    os.environ[MARK] = mark  # inherited by all that follow
    if kind == "standin":
        with Runner.of_plan(hand_made(rng), directory) as runner:
            yield runner
        return
    settings = {
        **stack.free_ports(), "ROLE": "single", "GLM47_ENGINE": "mocker", "GLM47_MODEL_PATH": str(model),
        "GLM47_STOP_TIMEOUT": f"{BUDGET:g}", "GLM47_PYTHON": str(stack.ENGINE / "python"),
        "GLM47_HTTP_HOST": "127.0.0.1", "GLM47_HEALTH_HOST": "127.0.0.1",
    }  # fmt: skip
    with stack.run(directory / "run", **settings) as runner:
        yield runner


def hurt(runner: Runner, rng: random.Random, mark: str, out: Outcome) -> None:
    """Signals to random processes at random moments, while the runner lives."""
    spread = rng.choice([0.3, 2.0, 5.0])
    for _ in range(rng.randint(1, 5)):
        time.sleep(rng.uniform(0.0, spread))
        if runner.process.poll() is not None:
            return
        if rng.random() < 0.15:
            signum, pid, name = rng.choice(STOPS), runner.process.pid, "the runner"
        else:
            victims = [pid for pid in marked(mark) if pid != runner.process.pid]
            if not victims:
                continue
            pid, signum = rng.choice(sorted(victims)), rng.choice(SIGNALS)
            name = title(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)
            out.sent.append(f"{signal.Signals(signum).name} to {name}")


def once(kind: str, seed: int, model: Path) -> Outcome:
    """Carry out the schedule of `seed`."""
    rng = random.Random(seed)
    mark = f"{os.getpid()}-{seed}"
    out = Outcome(seed, None)
    directory = Path(tempfile.mkdtemp(prefix="glm47-chaos-"))
    try:
        with container(kind, rng, mark, directory, model) as runner:
            if kind == "mocker" and rng.random() < 0.7:
                with contextlib.suppress(AssertionError):
                    runner.wait_for("runner | ready after", READY)
            hurt(runner, rng, mark, out)
            killed = rng.random() < 0.15 and runner.process.poll() is None
            if killed:
                runner.process.kill()
                out.sent.append("SIGKILL to the runner")
            elif runner.process.poll() is None:
                runner.process.send_signal(signal.SIGTERM)
                out.sent.append("SIGTERM to the runner")
            with contextlib.suppress(Exception):
                out.code = runner.wait(BUDGET + LATE)
            out.last = runner.lines[-1] if runner.lines else "(no output)"
            judge(out, runner, killed)
            if killed:
                again(directory, out)
            ended = time.monotonic()
            while (left := marked(mark)) and time.monotonic() - ended < LINGER:
                time.sleep(0.05)
            out.left = [title(pid) for pid in left]
            if left:
                out.faults.append(f"left: {', '.join(out.left)}")
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    finally:
        os.environ.pop(MARK, None)
        shutil.rmtree(directory, ignore_errors=True)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    return out


def again(directory: Path, out: Outcome) -> None:
    """A start in the same run directory, which ends what a killed runner has left."""
    with Runner.of_plan(plan(process("next")), directory) as runner:
        try:
            runner.wait_for("next is ready")
        except AssertionError:
            out.faults.append(f"no next start: {runner.lines[-1:]}")
        runner.signal(signal.SIGTERM)
        runner.wait()


def judge(out: Outcome, runner: Runner, killed: bool) -> None:
    """Whether the end is one that the exit codes allow."""
    if out.code is None:
        out.faults.append("it hangs")
        return
    if killed:
        if out.code not in (-signal.SIGKILL, *allowed(out)):
            out.faults.append("a wrong code")
        return
    if out.code not in allowed(out):
        out.faults.append("a wrong code")
    if out.code >= 0 and "Traceback" in runner.text() and "entrypoint/" in runner.text():
        out.faults.append("a traceback of the runner's own")
    if out.code == 0 and "asked to stop by" not in out.last:
        out.faults.append("0 without having been asked to stop")


def allowed(out: Outcome) -> set[int]:
    """Codes that the signals sent can lead to: what a process died of, a hang, and a stop."""
    codes = {0, 1, 75, 137}
    for sent in out.sent:
        name = sent.partition(" ")[0]
        codes.add(128 + signal.Signals[name])
        if sent.endswith("the runner"):
            codes.add(-signal.Signals[name])  # before its first line of code
    return codes


def main(words: list[str] | None = None, say: Callable[[str], None] = print) -> int:
    """Run the schedules; 1 when any of them had a fault."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1, help="of the first schedule")
    parser.add_argument("--stack", choices=("standin", "mocker"), default="standin")
    options = parser.parse_args(words)
    # What a killed runner would leave must come to us, not to the machine's init.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    codes: Counter[int | None] = Counter()
    bad = signals = 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        model = make_demo_model(Path(scratch) / "model")
        for seed in range(options.seed, options.seed + options.count):
            out = once(options.stack, seed, model)
            codes[out.code] += 1
            signals += len(out.sent)
            if out.faults:
                bad += 1
                say(str(out))
    took = time.monotonic() - began
    told = ", ".join(f"{code}: {count}" for code, count in sorted(codes.items(), key=str))
    say(f"{options.count} schedules, {signals} signals, {bad} with a fault, {took:.0f} s; codes {told}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
