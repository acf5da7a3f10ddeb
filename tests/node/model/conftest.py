from __future__ import annotations

from pathlib import Path

import pytest

from tests.node.model.files import model_directory


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A whole model directory."""
    return model_directory(tmp_path / "models/glm")


@pytest.fixture
def view(tmp_path: Path) -> Path:
    """Where its corrected view belongs."""
    return tmp_path / "run/model/glm-4.7"
