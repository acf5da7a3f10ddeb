"""Writes a report: `report.json` for programs, `report.md` for people, plots."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from entrypoint.base.files import replace_file
from entrypoint.commands.bench import aiperf
from entrypoint.commands.bench.markdown import PLOTS, markdown
from entrypoint.commands.bench.report import JSON, Report
from entrypoint.errors import CannotWriteError

MARKDOWN = "report.md"
DRAW_TIMEOUT = 120.0
"""Seconds that matplotlib may take for all plots."""


def write(report: Report, directory: Path) -> None:
    """Write both files, each at once. CannotWriteError (73)."""
    texts = {JSON: json.dumps(report.to_jsonable(), indent=2) + "\n", MARKDOWN: markdown(report)}
    for name, text in texts.items():
        path = directory / name
        try:
            replace_file(path, text.encode())
        except OSError as error:
            raise CannotWriteError(
                f"cannot write the report: {path}: {error.strerror}: free some space or give another --output"
            ) from None


def draw(report: Report, directory: Path, python: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Draw the plots with `python`'s matplotlib; the names of those there are.

    A failure costs the plots only: what matplotlib said is in plots.error.txt.
    """
    if not report.summary():
        return ()
    script = Path(__file__).with_name("plots.py")
    with tempfile.TemporaryDirectory(prefix="glm47-bench-", ignore_cleanup_errors=True) as home:
        try:
            done = subprocess.run(
                [python, str(script), str(directory / JSON), str(directory)],
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DRAW_TIMEOUT,
                env=aiperf.child_environment(environ, home),
            )  # fmt: skip
            problem = done.stderr if done.returncode else ""
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = str(error)
    if problem:
        (directory / "plots.error.txt").write_text(problem, encoding="utf-8")
    return tuple(name for name in PLOTS if (directory / name).is_file())
