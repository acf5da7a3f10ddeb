from __future__ import annotations

from pathlib import Path

import pytest

from entrypoint.prepare import model_view
from tests.node.model.files import model_directory


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A whole model directory."""
    return model_directory(tmp_path / "models/glm")


@pytest.fixture
def view(tmp_path: Path) -> Path:
    """Where its corrected view belongs."""
    return model_view.view_path(tmp_path / "run", "glm-4.7")
