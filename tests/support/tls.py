"""A certificate for 127.0.0.1."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from bench.releases import UnavailableError
from tests.support.available import available


def _openssl() -> None:
    if shutil.which("openssl") is None:
        raise UnavailableError("no openssl on PATH: install openssl")


def make_certificate(path: Path) -> Path:
    """A server's own, with its key in the same file, `path`. Skips where there is no openssl."""
    request = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=server -out /dev/stdout"
    command = [*request.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path)]
    available(_openssl)
    text = subprocess.run(command, capture_output=True, check=True).stdout
    path.write_bytes(path.read_bytes() + text)
    return path
