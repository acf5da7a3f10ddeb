from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.prepare.flashinfer import packages
from tests.prepare.patches.conftest import pytest_generate_tests as pytest_generate_tests
from tests.prepare.patches.conftest import unshare as unshare
from tests.support.available import available


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes a directory to import a release from, once, for others to be copied from."""
    made: dict[str, Path] = {}

    def make(version: str) -> Path:
        if version not in made:
            available(lambda: packages.unpacked(version))
            made[version] = packages.whole(version, tmp_path_factory.mktemp("whole") / "site")
        return made[version]

    return make


@pytest.fixture
def site(whole: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """Makes a directory to import a release from, for this test to change."""

    def make(version: str) -> Path:
        return Path(shutil.copytree(whole(version), tmp_path / "site", copy_function=os.link))

    return make


@pytest.fixture(params=["read-only", "stranger"])
def fence(request: pytest.FixtureRequest) -> Callable[[Path], list[str]]:
    """Words that start a command which cannot write a directory, in each way there is."""

    def words(place: Path) -> list[str]:
        made = packages.fences()[request.param](place)
        if made is None:
            pytest.skip(f"this machine has no way to be {request.param}")
        return list(made)

    return words
