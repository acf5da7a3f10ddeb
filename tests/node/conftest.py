from __future__ import annotations

from tests.plan.conftest import bare_environment as bare_environment
