from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings made by hand must not pick up what this shell happens to export."""
    for name in [n for n in os.environ if n == "ROLE" or n.startswith("GLM47_")]:
        monkeypatch.delenv(name)
