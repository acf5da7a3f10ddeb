"""The directory of certificates: all three files, or one line that names the one that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from entrypoint.node.certificates import FIRST_LINES, read

PEM = {
    "ca.crt": "-----BEGIN CERTIFICATE-----\na\n",
    "tls.crt": "-----BEGIN CERTIFICATE-----\nb\n",
    "tls.key": "-----BEGIN EC PRIVATE KEY-----\nc\n",
}


def fill(directory: Path) -> None:
    for name, text in PEM.items():
        (directory / name).write_text(text)


def test_what_is_there_is_text(tmp_path: Path) -> None:
    fill(tmp_path)
    found = read(str(tmp_path))
    assert (found.authority, found.certificate, found.key) == tuple(PEM.values()) and found.error is None


@pytest.mark.parametrize("name", FIRST_LINES)
@pytest.mark.parametrize("content", [None, "", "x", "-----BEGIN PUBLIC KEY-----\n", b"\x30\x82\xff"])
def test_each_that_is_none(name: str, content: str | bytes | None, tmp_path: Path) -> None:
    fill(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    error = read(str(tmp_path)).error
    assert error is not None and error.startswith(f"{tmp_path}/{name}: ") and "\n" not in error
