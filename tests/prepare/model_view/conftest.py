from __future__ import annotations

from tests.node.model.conftest import source as source
from tests.node.model.conftest import view as view
