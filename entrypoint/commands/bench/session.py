"""One benchmark from end to end: look at the deployment, run every test, write the report as it grows."""

from __future__ import annotations

import platform
import shlex
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from entrypoint import __version__
from entrypoint.commands.bench import aiperf, files, report
from entrypoint.commands.bench.display import Display
from entrypoint.commands.bench.markdown import one_line
from entrypoint.commands.bench.places import find_tokenizer, make_directory, read_plans
from entrypoint.commands.bench.results import Measured, Progress, Run, read
from entrypoint.commands.bench.server import NotServing, Server, deployment, require_served, wait_for
from entrypoint.commands.bench.suite import BenchTest, Suite
from entrypoint.errors import CheckFailedError

POLL = 0.2
"""Seconds between two looks at AIPerf."""
INTERRUPT_GRACE = 30.0
"""Seconds that AIPerf gets to write what it has measured."""
SILENCE = 15.0
"""Seconds without a finished request after which the server is asked whether it is there at all."""
ANSWER_TIMEOUT = 120.0
"""Seconds that each question before the benchmark may take."""
LOST_AFTER = 3
"""Times in a row, one second apart, that it must fail to answer."""


@dataclass
class Options:
    """What a benchmark is asked to do."""

    suite: Suite
    url: str
    model: str
    tokenizer: str | None
    """A directory; None: the deployment's model directory, when it is here too, else `model_path`."""
    model_path: str
    directory: Path
    repeat: int = 1
    wait: float = 0.0
    """Seconds to wait for the model to be listed."""
    health: tuple[str, ...] = ()
    health_port: int = 9480
    status_token: str | None = field(default=None, repr=False)
    plans: tuple[Path, ...] = ()
    """Files to read plans from, instead of asking health ports."""
    api_key: str | None = field(default=None, repr=False)
    aiperf_python: str | None = None
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    command: tuple[str, ...] = ()


class Stopped(BaseException):
    """A signal asked for an end before anything was measured."""


class Session:
    """Runs once. `stop` may be called from a signal handler."""

    def __init__(self, options: Options, display: Display) -> None:
        self.options = options
        self._display = display
        self._signals: list[int] = []
        self._runs: list[Run] = []
        self._measuring = False

    def stop(self, signum: int) -> None:
        """The first time AIPerf is asked to write what it has; the second time it is killed.

        Raises Stopped while nothing has been measured yet.
        """
        self._signals.append(signum)
        if not self._measuring:
            raise Stopped

    @property
    def stopped_by(self) -> int | None:
        """The first signal that asked for an end."""
        return self._signals[0] if self._signals else None

    def run(self) -> report.Report:
        """Look, measure, report. The report says whether every test was completed.

        Raises what makes a benchmark impossible: ConfigError (78), NobodyListensError (69), ModelError (66),
        CannotWriteError (73), CheckFailedError (1) for answers that are errors.
        """
        options, say = self.options, self._display.say
        found = aiperf.find(options.aiperf_python, options.environ, sys.prefix)
        server = Server(options.url, options.api_key)
        runners, tokenizer = wait_for(server, lambda: self._look(server), options.wait, say)
        self._measuring = True
        directory = make_directory(options.directory)
        context = {
            "time": now(),
            "url": server.url,
            "model": options.model,
            "tokenizer": tokenizer,
            "command": shlex.join(options.command),
            "node": socket.gethostname(),
            "versions": {
                "glm47-runner": __version__, "aiperf": found.version, "python": platform.python_version(),
                "machine": platform.machine(),
            },
            "deployment": runners,
        }  # fmt: skip
        total = len(options.suite.tests) * options.repeat
        runs = "1 run" if total == 1 else f"{total} runs"
        say(f"{options.suite.name}: {runs} against {server.url}, into {directory}")
        self._write(directory, context, "running", None)
        state, reason = "complete", None
        for number, (repeat, test) in enumerate(
            ((r, t) for r in range(1, options.repeat + 1) for t in options.suite.tests), 1
        ):
            if self._signals:
                state, reason = "interrupted", self._interrupted(f"{number - 1} of {total} whole runs")
                break
            name = test.name + (f" ({repeat} of {options.repeat})" if options.repeat > 1 else "")
            self._display.begin(
                f"{number}/{total} {name}", test.requests, f"{test.load}, {test.lengths} tokens"
            )
            run = self._measure(found, server, test, repeat, directory, tokenizer)
            self._runs.append(run)
            self._display.end(one_line(run, test))
            self._write(directory, context, "running", None)
            if run.state != "complete":
                state = run.state
                reason = self._why(run, name, test, f"{number - 1} of {total} whole runs")
                break
        if state == "complete" and (reason := failures(options.suite, self._runs)):
            state = "failed requests"
        written = self._write(directory, context, state, reason)
        written.plots = files.draw(written, directory, found.python, options.environ)
        files.write(written, directory)
        return written

    def _look(self, server: Server) -> tuple[list[dict[str, Any]], str]:
        """The deployment's runners and the tokenizer's directory, once the model is found to be served."""
        options = self.options
        require_served(server, options.model)
        runners = read_plans(options.plans)
        if options.health or not runners:
            runners += deployment(server.url, options.health, options.health_port, options.status_token)
        if options.wait:
            # A model may be listed before all its workers are there.
            for runner in runners:
                if runner.get("ready") is False:
                    raise NotServing(f"its runner at {runner['address']} is not ready")
        tokenizer = find_tokenizer(options.tokenizer, options.model_path, runners)
        server.answers(options.model, ANSWER_TIMEOUT)
        return runners, tokenizer

    def _why(self, run: Run, name: str, test: BenchTest, done: str) -> str:
        if run.state == "interrupted":
            return self._interrupted(done)
        if run.state == "server lost":
            answered = f"{run.succeeded} of {test.requests} requests were answered"
            return f"the server was lost during {name}, after {answered}: {run.reason}"
        return f"{name}: {run.reason}"

    def _interrupted(self, done: str) -> str:
        name = signal.Signals(self._signals[0]).name if self._signals else "a signal"
        return f"ended by {name} after {done}"

    def _write(
        self, directory: Path, context: dict[str, Any], state: str, reason: str | None
    ) -> report.Report:
        made = report.Report(
            self.options.suite, self.options.repeat, context, tuple(self._runs), state, reason
        )
        files.write(made, directory)
        return made

    def _measure(
        self,
        found: aiperf.AIPerf,
        server: Server,
        test: BenchTest,
        repeat: int,
        directory: Path,
        tokenizer: str,
    ) -> Run:
        options = self.options
        artifacts = directory / "aiperf" / test.name / f"run-{repeat}"
        artifacts.mkdir(parents=True)
        args = aiperf.arguments(
            test, url=server.url, model=options.model, tokenizer=tokenizer, directory=artifacts
        )
        counted = server.output_tokens(options.model)
        started, begin = now(), time.monotonic()
        console = artifacts.with_name(f"{artifacts.name}.console.txt")
        process = aiperf.Process(found, args, options.environ, console, options.api_key)
        try:
            state, reason = self._watch(process, server, test, artifacts)
        finally:
            process.close()
        measured = read(artifacts)
        if state == "complete" and not measured.succeeded + measured.failed:
            state, reason = "aiperf failed", f"AIPerf measured nothing: see {console}"
        complete = state == "complete" and not measured.failed
        return Run(
            test=test.name, repeat=repeat, state=state, reason=reason, started=started,
            seconds=round(time.monotonic() - begin, 3), measured_seconds=measured.seconds,
            succeeded=measured.succeeded, failed=measured.failed, errors=measured.errors,
            output_tokens=measured.output_tokens,
            server_tokens=_counted(server, options.model, counted, test, measured) if complete else None,
            metrics=measured.metrics, from_records=measured.from_records,
            artifacts=str(artifacts.relative_to(directory)), command=(found.python, "-m", "aiperf", *args),
        )  # fmt: skip

    def _watch(
        self, process: aiperf.Process, server: Server, test: BenchTest, artifacts: Path
    ) -> tuple[str, str | None]:
        progress = Progress(artifacts)
        news, failed = time.monotonic(), 0
        while not process.wait(POLL):
            if progress.update():
                news = time.monotonic()
            self._display.update(progress)
            if self._signals:
                self._finish(process)
                return "interrupted", None
            begun = progress.done or progress.warmup
            failing = progress.failed > failed
            if failing or (begun and time.monotonic() - news > SILENCE):
                failed = progress.failed
                # A silent server may be a busy one, whose measured load must not get a request more.
                if why := self._lost(process, server.require_answer if failing else server.require):
                    self._finish(process)
                    return "server lost", why
                news = time.monotonic()
        progress.update()
        if progress.failing and (why := self._lost(process, server.require_answer)):
            # Requests to a dying server fail so fast that AIPerf may be through with them before it is gone.
            return "server lost", why
        code = process.poll()
        # AIPerf ends with 1 when requests failed; what it measured counts nevertheless.
        if code != 0 and not progress.done:
            return "aiperf failed", f"AIPerf ended with {code}: see {artifacts}.console.txt"
        return "complete", None

    def _lost(self, process: aiperf.Process, require: Callable[[str], None]) -> str | None:
        why = None
        for attempt in range(LOST_AFTER):
            if attempt:
                process.wait(1.0)
            if self._signals:
                return None
            try:
                require(self.options.model)
            except (NotServing, CheckFailedError) as error:
                why = str(error)
            else:
                return None
        return why

    def _finish(self, process: aiperf.Process) -> None:
        """Let AIPerf write its summary; a second signal or the grace's end cuts that short."""
        self._display.note("AIPerf writes what it has measured")
        process.interrupt()
        deadline = time.monotonic() + INTERRUPT_GRACE
        most = max(1, len(self._signals))
        while not process.wait(POLL) and time.monotonic() < deadline and len(self._signals) <= most:
            pass


def failures(suite: Suite, runs: list[Run]) -> str | None:
    """Which tests had more failed requests than they may have, in one line; None when none had."""
    limits = {test.name: test.max_failed for test in suite.tests}
    bad = [r for r in runs if r.failed > limits[r.test] * (r.succeeded + r.failed)]
    if not bad:
        return None
    first = bad[0]
    error = first.errors[0][0] if first.errors else "no reason given"
    tests = ", ".join(dict.fromkeys(run.test for run in bad))
    requests = sum(run.succeeded + run.failed for run in bad)
    return f"{sum(r.failed for r in bad)} of {requests} requests failed in {tests}: first: {error}"


def now() -> str:
    """The time as ISO 8601, UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _counted(
    server: Server, model: str, before: int | None, test: BenchTest, measured: Measured
) -> int | None:
    after = server.output_tokens(model)
    warmup = measured.warmup_tokens if test.warmup_requests else 0
    if after is None or warmup is None:
        return None
    # A frontend that counts from its first request on has no counter before it.
    return after - (before or 0) - warmup
