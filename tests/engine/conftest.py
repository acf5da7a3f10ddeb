"""Every test here starts SGLang itself, on the CPU, through the runner."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.available import available
from tests.support.cpu_engine import engine_python, make_model, prompts, reference
from tests.support.cpu_engine.install import NEWER, PINNED
from tests.support.node import Node, second_node


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test` leaves them out: they need 2.5 GB."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.engine)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What takes `release` runs on the pinned one; with ``pytest -m releases``, on the newer ones instead."""
    if "release" in metafunc.fixturenames:
        newer = "releases" in (metafunc.config.option.markexpr or "").replace("not releases", "")
        marked = [pytest.param(version, marks=pytest.mark.releases) for version in NEWER]
        metafunc.parametrize("release", marked if newer else [PINNED], indirect=True, scope="session")


@pytest.fixture(scope="session")
def release(request: pytest.FixtureRequest) -> str:
    """SGLang's release; its engine is installed."""
    version: str = request.param
    available(lambda: engine_python(version))
    return version


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two KV heads: with two ranks each has one."""
    return make_model(tmp_path_factory.mktemp("models") / "glm")


@pytest.fixture(scope="session")
def asked() -> list[str]:
    """Prompts from a line to a page."""
    return prompts()


@pytest.fixture(scope="session")
def right(release: str, model: Path, asked: list[str]) -> list[str]:
    """The answers to `asked`, from transformers."""
    return reference(model, asked, release=release)


@pytest.fixture
def other() -> Iterator[Node]:
    """A second machine."""
    with second_node() as node:
        yield node
