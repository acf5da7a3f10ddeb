"""Documents can be read in a terminal, beside their source."""

from __future__ import annotations

import subprocess

from tests.lint.sources import ROOT

WIDTH = 120


def test_lines_fit() -> None:
    """Tables, examples and code may be longer: they cannot be broken."""
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    too_long = []
    for name in listed.stdout.split():
        fenced = False
        for number, line in enumerate((ROOT / name).read_text().splitlines(), 1):
            fenced ^= line.startswith("```")
            if len(line) > WIDTH and not fenced and not line.startswith(("|", "    ")):
                too_long.append(f"{name}:{number}: {len(line)}")
    assert not too_long
