from __future__ import annotations

import pytest

from bench import releases
from entrypoint.node.versions import older


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """All releases only where they are asked for: ``pytest -m releases``."""
    if metafunc.definition.get_closest_marker("releases"):
        asked = "releases" in (metafunc.config.option.markexpr or "")
        skipped = pytest.param("", marks=pytest.mark.skip(reason="every release: pytest -m releases"))
        known = (
            [v for v in releases.versions() if older(v, releases.PINNED[0]) is False] if asked else [skipped]
        )
        metafunc.parametrize("version", known)
