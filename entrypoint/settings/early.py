"""A setting before settings are read, for what must be told even when they cannot be.

The layers are `load`'s, in its order; what cannot be read is no value here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from entrypoint.settings.files import Unreadable, is_file, parse_env_file, read_text

ENV_FILE_VARIABLE = "GLM47_ENV_FILE"
DEFAULT_ENV_FILE = ".env"


def value(variable: str, environ: Mapping[str, str], cwd: Path) -> str | None:
    """What the environment, .env, or a file that one of them names gives `variable`; None: nothing does.

    Never raises.
    """
    found = _of(variable, environ, cwd)
    path = cwd / (environ.get(ENV_FILE_VARIABLE) or DEFAULT_ENV_FILE)
    if found is not None or not is_file(path):
        return found
    try:
        return _of(variable, parse_env_file(read_text(path, encoding="utf-8-sig"))[0], cwd)
    except Unreadable:
        return None


def _of(variable: str, layer: Mapping[str, str], cwd: Path) -> str | None:
    if text := (layer.get(variable) or "").strip():
        return text
    path = (layer.get(f"{variable}_FILE") or "").strip()
    try:
        return (read_text(cwd / path).strip() or None) if path else None
    except Unreadable:
        return None
