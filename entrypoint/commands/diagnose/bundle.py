"""A support bundle: what somebody elsewhere needs to see, in one file, without secrets."""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from entrypoint.commands.diagnose import archive, logs, report
from entrypoint.commands.diagnose.logs import Diagnosis
from entrypoint.commands.diagnose.redact import redact, redact_json, secrets_of
from entrypoint.commands.diagnose.sources import ENDINGS, LAST
from entrypoint.errors import CannotWriteError

LINES = 10_000
"""Last lines of each process."""
TOP = "bundle"
"""The folder that everything in it lies in."""
WHOLE = (".jsonl", ".json", ".stacks")


def write(directory: Path, out: Path, environ: Mapping[str, str], found: Diagnosis) -> int:
    """Write the bundle of `directory`, of which `found` is the diagnosis, to `out`.

    Returns how many files it has. CannotWriteError (73).
    """
    secrets = secrets_of(environ)
    count = 0
    try:
        with archive.writing(out) as tar:
            for name, text in _parts(directory, found):
                clean = redact_json if name.endswith((".json", ".jsonl")) else redact
                data = clean(text, secrets).encode("utf-8", "replace")
                info = tarfile.TarInfo(f"{TOP}/{name}")
                info.size, info.mtime, info.mode = len(data), int(time.time()), 0o644
                tar.addfile(info, io.BytesIO(data))
                count += 1
    except OSError as error:
        raise CannotWriteError(
            f"cannot write {out}: {error.strerror or error}: name a file in a directory that you may write"
        ) from None
    return count


def _parts(directory: Path, found: Diagnosis) -> Iterator[tuple[str, str]]:
    """Name and text of each file of the bundle."""
    yield "diagnosis.txt", report.text(found) + "\n"
    yield "diagnosis.json", json.dumps(logs.as_json(found), indent=2) + "\n"
    base = directory if directory.is_dir() else directory.parent
    for path in sorted(directory.rglob("*")) if directory.is_dir() else [directory]:
        name = str(path.relative_to(base))
        if not path.is_file():
            continue
        if path.suffix in WHOLE or path.name in ("failure", "url"):
            yield name, path.read_text("utf-8", "replace")
        elif path.suffix in ENDINGS:
            yield name, _last_lines(path)


def _last_lines(path: Path) -> str:
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - LAST))
        lines = file.read().decode("utf-8", "replace").splitlines(keepends=True)
    return "".join(lines[-LINES:])
