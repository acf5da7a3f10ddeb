"""Versions come in the order that `packaging`, whose rules they follow, puts them in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from entrypoint.node.versions import key, newer, older

numbers = st.lists(st.integers(0, 3), min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))
pre = st.sampled_from(["", "a", "b", "rc", "alpha", "beta", ".dev", "-rc", "_beta", ".a"])
counted = st.tuples(pre, st.integers(0, 3)).map(lambda found: f"{found[0]}{found[1]}" if found[0] else "")
post = st.sampled_from(["", ".post0", ".post1", "post2", "-post3"])
local = st.sampled_from(["", "+cu129", "+local.1"])
versions = st.tuples(st.sampled_from(["", "v"]), numbers, counted, post, local).map("".join)


def public(text: str) -> Version:
    """Without the local part, which says how something was built."""
    return Version(Version(text).public)


@given(versions, versions)
def test_the_order_is_that_of_packaging(a: str, b: str) -> None:
    if (".dev" in a and "post" in a) or (".dev" in b and "post" in b):
        return  # `packaging` takes a post-release before dev only
    one, other = key(a), key(b)
    assert one is not None and other is not None
    assert (one < other) == (public(a) < public(b)), (a, b)
    assert (one == other) == (public(a) == public(b)), (a, b)
    assert older(a, b) == (one < other) and newer(a, b) == (one > other)


@pytest.mark.parametrize("text", ["", "main", "unknown", "+cu129", "-1", ".5"])
def test_what_is_no_version(text: str) -> None:
    assert key(text) is None
    assert older(text, "1.0") is None and not newer(text, "1.0")
    with pytest.raises(ValueError, match="^" + text.replace("+", "[+]")):
        older("1.0", text)
    assert not newer("1.0", text)


def test_a_version_that_nobody_knows_is_neither() -> None:
    assert older(None, "1.0") is None and not newer(None, "1.0")
