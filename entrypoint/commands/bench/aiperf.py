"""NVIDIA's AIPerf: where it is, its command line for a test, and one run of it as a child process.

It lives in an environment of its own, because it brings some hundred packages. What it needs of the network
is the server under test: the tokenizer is a directory, and the model hub's address is replaced by one that
refuses.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from entrypoint.commands.bench.suite import BenchTest
from entrypoint.errors import ConfigError
from entrypoint.node.engine import site_packages

IMAGE_PYTHON = "/opt/aiperf/bin/python"
"""Where the image keeps the environment."""
VARIABLE = "GLM47_AIPERF_PYTHON"

_DIST_INFO = re.compile(r"^aiperf-(?P<version>[^-]+)\.dist-info$")
# The key comes on standard input: the command line of a process can be read by everybody on the machine.
_WITH_KEY = (
    "import sys; sys.argv[:] = ['aiperf', *sys.argv[1:], '--api-key', sys.stdin.readline().rstrip('\\n')]; "
    "from aiperf.cli import app; app()"
)
_NOWHERE = "http://127.0.0.1:9"
_NOT_FOR_AIPERF = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "PYTHONPATH", "PYTHONHOME", "GLM47_API_KEY")


@dataclass(frozen=True)
class AIPerf:
    """An interpreter that has aiperf."""

    python: str
    version: str


def find(given: str | None, environ: Mapping[str, str], prefix: str) -> AIPerf:
    """The AIPerf that `given` (GLM47_AIPERF_PYTHON) names, the image's, or the one beside the runner.

    Raises ConfigError (78) when there is none.
    """
    remedy = f"run `make setup-bench`, or set {VARIABLE} to an interpreter that has aiperf"
    if given is not None:
        python = shutil.which(given, path=environ.get("PATH", os.defpath))
        if python is None:
            raise ConfigError(f"cannot run {VARIABLE}: {given}: no such executable: {remedy}")
        candidates = [python]
    else:
        candidates = [p for p in (IMAGE_PYTHON, f"{prefix}/bench/bin/python") if os.access(p, os.X_OK)]
    for python in candidates:
        for directory in site_packages(python):
            if not directory.is_dir():
                continue
            for path in directory.iterdir():
                if match := _DIST_INFO.match(path.name):
                    return AIPerf(python, match["version"])
    where = f"{VARIABLE}: {given}: it has no aiperf" if given else f"aiperf: {VARIABLE} is unset"
    raise ConfigError(f"cannot find {where}: {remedy}")


def arguments(test: BenchTest, *, url: str, model: str, tokenizer: str, directory: Path) -> list[str]:
    """The arguments of `aiperf` for `test`, without the API key. Pure."""
    args = [
        "profile",
        "--model", model, "--url", url, "--endpoint-type", test.endpoint, "--streaming",
        "--tokenizer", tokenizer, "--use-server-token-count",
        "--request-count", str(test.requests), "--random-seed", str(test.seed),
        "--request-timeout-seconds", f"{test.request_timeout:g}",
    ]  # fmt: skip
    if test.warmup_requests:
        args += ["--warmup-request-count", str(test.warmup_requests)]
    if test.concurrency is not None:
        args += ["--concurrency", str(test.concurrency)]
    if test.request_rate is not None:
        args += ["--request-rate", f"{test.request_rate:g}", "--arrival-pattern", test.arrival]
    if test.mix:
        shares = ";".join(f"{share.isl},{share.osl}:{share.percent:g}" for share in test.mix)
        args += ["--seq-dist", shares]
    else:
        args += ["--isl", str(test.isl), "--osl", str(test.osl)]
        if test.isl_stddev:
            args += ["--isl-stddev", f"{test.isl_stddev:g}"]
        if test.osl_stddev:
            args += ["--osl-stddev", f"{test.osl_stddev:g}"]
    if test.goodput:
        args += ["--goodput", " ".join(f"{tag}:{limit:g}" for tag, limit in test.goodput.items())]
    for name, value in test.extra_inputs.items():
        args += ["--extra-inputs", f"{name}:{value if isinstance(value, str) else json.dumps(value)}"]
    args += ["--no-gpu-telemetry", "--ui", "none", "--artifact-dir", str(directory)]
    return [*args, *test.aiperf_args]


class Process:
    """One run of AIPerf in a session of its own, so that a Ctrl-C reaches it through us only."""

    def __init__(
        self, aiperf: AIPerf, args: list[str], environ: Mapping[str, str], console: Path, api_key: str | None
    ) -> None:
        command = [aiperf.python, *(("-c", _WITH_KEY) if api_key else ("-m", "aiperf")), *args]
        self._home = tempfile.TemporaryDirectory(prefix="glm47-bench-", ignore_cleanup_errors=True)
        self._console: IO[bytes] = console.open("wb")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if api_key else subprocess.DEVNULL,
            stdout=self._console,
            stderr=subprocess.STDOUT,
            env=child_environment(environ, self._home.name),
            start_new_session=True,
        )
        if api_key and self._process.stdin is not None:
            self._process.stdin.write(f"{api_key}\n".encode())
            self._process.stdin.close()

    def poll(self) -> int | None:
        """The exit code (negative for a signal), None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float) -> bool:
        """Whether it ended within `timeout` seconds."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def interrupt(self) -> None:
        """Ask it to end early and to write what it has measured."""
        if self.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def close(self) -> None:
        """Kill what is left of it: itself, if it still runs, and the processes of its session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._console.close()
        self._home.cleanup()


def child_environment(environ: Mapping[str, str], home: str) -> dict[str, str]:
    """What AIPerf and the plot script get: no model hub, no caches outside `home`, none of our secrets."""
    # AIPerf takes HF_HUB_OFFLINE for "look in the hub's cache", and then refuses a directory.
    kept = {k: v for k, v in environ.items() if k not in _NOT_FOR_AIPERF}
    return {**kept, "HF_ENDPOINT": _NOWHERE, "HF_HOME": home, "MPLCONFIGDIR": home, "DO_NOT_TRACK": "1"}
