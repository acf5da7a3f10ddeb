"""Programs of other projects that the tests here call, from PATH or from a Debian package."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

from bench.releases import UnavailableError
from tests.support.available import available


@cache
def programs(package: str, suite: str, *names: str) -> Path:
    """A directory with the programs `names`; skips without them, fails when CI=true.

    `package`: Debian's, of release `suite`, for where they are not on PATH.
    """

    def get() -> Path:
        script = Path(__file__).with_name("programs.sh")
        done = subprocess.run(
            [script, package, suite, *names], capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode:
            raise UnavailableError(f"no {package}: {done.stderr.strip()[-300:]}")
        return Path(done.stdout.strip())

    return available(get)
