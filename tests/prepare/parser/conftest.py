from __future__ import annotations

import pytest

from bench.options import DYNAMO, PAIRED

PINNED = ("0.5.6.post2", "0.8.1")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The pinned and the newest, and with ``pytest -m releases`` every Dynamo with a sglang of its time."""
    if "pair" in metafunc.fixturenames:
        others = [(PAIRED[v.rpartition(".")[0]], v) for v in DYNAMO]
        always = (PINNED, others[-1])
        marked = [pytest.param(pair, marks=pytest.mark.releases) for pair in others if pair not in always]
        metafunc.parametrize("pair", [*always, *marked], ids="-".join)
