"""Host list expressions: by example, and against the real `scontrol show hostnames`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from entrypoint.node import nodelist


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("", ""),
        ("  ", ""),
        ("node1", "node1"),
        ("nvl72d[001-003]", "nvl72d001 nvl72d002 nvl72d003"),
        ("n[08-11],m", "n08 n09 n10 n11 m"),
        ("n[8-011]", "n8 n9 n10 n11"),
        ("n[099-101]", "n099 n100 n101"),
        ("a[5,3,1-2]", "a5 a3 a1 a2"),
        ("nvl72d012-T[01-02],nvl72d013-T09", "nvl72d012-T01 nvl72d012-T02 nvl72d013-T09"),
        ("a[1-2]b[3-4]", "a1b3 a1b4 a2b3 a2b4"),
        ("a[0-1]b[2-3]c[5-6]", "a0b2c5 a0b2c6 a1b2c5 a1b2c6 a0b3c5 a0b3c6 a1b3c5 a1b3c6"),
        ("rack[1-2]-ib,x", "rack1-ib rack2-ib x"),
        (
            "r[1-2]n[3-4].cluster.local",
            "r1n3.cluster.local r1n4.cluster.local r2n3.cluster.local r2n4.cluster.local",
        ),
        (" a , b ", "a b"),
        ("a,,b", "a b"),
        ("a[1,1]", "a1 a1"),
    ],
)
def test_expand(text: str, hosts: str) -> None:
    assert nodelist.expand(text) == tuple(hosts.split())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a[1-3", "']' is missing"),
        ("a]b", "']' without '[' at character 2"),
        ("a[1-[2]]", "'[' inside a bracket at character 5"),
        ("a[]", "'' in '[]' is neither a number nor a range"),
        ("a[3-1]", "the range '3-1' runs backwards"),
        ("a[x-y]", "'x-y' in '[x-y]' is neither"),
        ("a[1-]", "'1-' in '[1-]' is neither"),
        ("a[1-99999999999]", "more than 65536 hosts"),
        ("a[1-300]b[1-300]", "more than 65536 hosts"),
    ],
)
def test_what_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as error:
        nodelist.expand(text)
    assert reason in str(error.value)


@given(st.text(alphabet="ab0129[]-, ", max_size=24))
def test_any_text_is_expanded_or_refused(text: str) -> None:
    try:
        hosts = nodelist.expand(text)
    except ValueError as error:
        assert str(error)
    else:
        assert len(hosts) <= nodelist.MAX_HOSTS
        assert all(host and not set(host) & set("[], ") for host in hosts)


_number = st.integers(0, 120)
_width = st.integers(1, 4)


@st.composite
def _range(draw: st.DrawFn) -> str:
    width, low = draw(_width), draw(_number)
    if draw(st.booleans()):
        return f"{low:0{width}d}"
    return f"{low:0{width}d}-{low + draw(st.integers(0, 6)):0{width}d}"


_bracket = st.lists(_range(), min_size=1, max_size=3).map(lambda items: f"[{','.join(items)}]")
_word = st.text(alphabet="abx-", min_size=1, max_size=4).filter(lambda word: not word.startswith("-"))
_text = st.sampled_from(["", "b", "-t", "7"])
# scontrol refuses text after the last bracket, so every name here ends in one or has none.
_one = st.builds(
    lambda word, brackets: word + "".join(text + bracket for text, bracket in brackets),
    _word,
    st.lists(st.tuples(_text, _bracket), max_size=3),
)
_lists = st.lists(_one, min_size=1, max_size=4).map(",".join)


@pytest.fixture(scope="module")
def scontrol(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    if shutil.which("scontrol") is None:
        if os.environ.get("GLM47_CI_SLURM") == "1":
            pytest.fail("GLM47_CI_SLURM=1 promised Slurm, but scontrol is not installed", pytrace=False)
        pytest.skip("scontrol is not installed (Debian: slurm-client)")
    conf = Path(tmp_path_factory.mktemp("slurm")) / "slurm.conf"
    conf.write_text("ClusterName=none\nSlurmctldHost=localhost\n")
    return {**os.environ, "SLURM_CONF": str(conf)}


@pytest.mark.slurm
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=_lists)
def test_agrees_with_scontrol(scontrol: dict[str, str], text: str) -> None:
    real = subprocess.run(
        ["scontrol", "show", "hostnames", text], env=scontrol, capture_output=True, text=True, check=True
    )
    assert list(nodelist.expand(text)) == real.stdout.split()
