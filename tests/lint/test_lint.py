"""The linters and type checkers, as tests."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def tracked(*suffixes: str) -> list[str]:
    """Files of the project, as git knows them or would; their paths from the root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return [n for n in names if n.endswith(suffixes) and (ROOT / n).is_file()]


def shell_scripts() -> list[str]:
    """By ending or by first line."""
    found = tracked(".sh", ".sbatch")
    for name in tracked(""):
        if "." not in Path(name).name or name.startswith(".ci/"):
            with (ROOT / name).open("rb") as file:
                if re.match(rb"#!.*\b(ba)?sh\b", file.readline()):
                    found.append(name)
    return sorted(set(found))


def passes(tool: str, *arguments: str) -> None:
    """Run a tool of the test environment; its complaints are the failure."""
    done = subprocess.run([BIN / tool, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff() -> None:
    passes("ruff", "check", ".")


def test_ruff_format() -> None:
    passes("ruff", "format", "--check", ".")


def test_mypy() -> None:
    passes("mypy")


def test_shellcheck() -> None:
    assert ".ci/run" in shell_scripts()
    passes("shellcheck", "--external-sources", *shell_scripts())


def test_shfmt() -> None:
    passes("shfmt", "--diff", *shell_scripts())


def test_yamllint() -> None:
    files = tracked(".yaml", ".yml")
    assert files
    passes("yamllint", "--strict", *files)


def dockerfiles() -> list[str]:
    return [
        n for n in tracked("") if Path(n).name.startswith("Dockerfile") and not n.endswith(".dockerignore")
    ]


@pytest.mark.parametrize("name", dockerfiles())
def test_hadolint(name: str) -> None:
    passes("hadolint", name)


def test_lock_files_record_hashes_and_no_addresses() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        text = path.read_text()
        assert "://" not in text, path
        if path.name == "torch.txt":
            continue  # its CPU and CUDA builds share a version, and which one an index has differs
        pins = [line for line in text.splitlines() if re.match(r"[A-Za-z0-9]", line)]
        assert pins and all("==" in line and line.endswith("\\") for line in pins), path


def test_the_demo_extra_is_the_engine_environment() -> None:
    extra = re.search(r"^demo = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.M)
    assert extra
    wanted = set(re.findall(r'"([^"]+)"', extra[1]))
    lines = (ROOT / "requirements" / "engine.in").read_text().splitlines()
    assert {line for line in lines if line and not line.startswith("#")} == wanted


def test_tests_stay_small() -> None:
    """Modules of the product have test_architecture.py's limit."""
    long = {n: lines for n in tracked(".py") if (lines := (ROOT / n).read_text().count("\n")) > 390}
    assert not long


def test_decisions_have_a_date_and_a_status() -> None:
    files = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert files
    for file in files:
        status = file.read_text().splitlines()[2]
        assert re.fullmatch(r"20\d\d-\d\d-\d\d, (accepted|superseded by [a-z-]+\.md)\.", status), file
