"""docs/settings.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from entrypoint.settings import doc
from entrypoint.settings.schema import INTERNAL, LOADER_ONLY
from entrypoint.settings.words import variables

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_is_the_rendering() -> None:
    assert PAGE.read_text(encoding="utf-8") == doc.render(), (
        "run: python -m entrypoint.settings.doc > docs/settings.md"
    )


def test_every_variable_has_one_row() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", doc.render(), re.MULTILINE)
    assert rows == [*variables(), *LOADER_ONLY, *INTERNAL]
