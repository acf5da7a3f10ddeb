from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from bench import releases
from tests.prepare.patches import sample
from tests.support.available import available


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The sweep over all releases runs only where it is asked for: ``pytest -m releases``."""
    if metafunc.definition.get_closest_marker("releases"):
        asked = "releases" in (metafunc.config.option.markexpr or "")
        skipped = pytest.param("", marks=pytest.mark.skip(reason="every release: pytest -m releases"))
        metafunc.parametrize("version", releases.versions() if asked else [skipped])


@pytest.fixture
def source_dir(tmp_path: Path) -> Path:
    """A directory that holds a made-up sglang package."""
    return sample.write(tmp_path / "site")


@pytest.fixture(scope="session")
def pinned() -> releases.Release:
    """The image's default sglang release, unpacked, and torch to run it with."""

    def get() -> releases.Release:
        releases.torch_python()
        return releases.release(releases.PINNED[0])

    return available(get)


@pytest.fixture
def unshare() -> list[str]:
    """Words that start a command with mounts of its own."""
    words = ["unshare", "--mount", *([] if os.getuid() == 0 else ["--map-root-user"])]
    if shutil.which("unshare") is None or subprocess.run([*words, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody unshare mounts")
    return words
