"""GLM47_ETCD_MEMBERS: what it may be, and the one line for what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from entrypoint.settings.load import load
from entrypoint.settings.members import Member, members
from tests.settings.helpers import problems

GOOD = {
    "a": [("a", "a")],
    "a,b,c": [("a", "a"), ("b", "b"), ("c", "c")],
    " x=a , y=b , z=c ": [("x", "a"), ("y", "b"), ("z", "c")],
    "glm47-etcd-0.glm47-pods,b.glm47-pods.default.svc.,c": [
        ("glm47-etcd-0.glm47-pods", "glm47-etcd-0.glm47-pods"),
        ("b.glm47-pods.default.svc.", "b.glm47-pods.default.svc."),
        ("c", "c"),
    ],
    "10.0.0.1,10.0.0.2,z=10.0.0.3": [("10.0.0.1", "10.0.0.1"), ("10.0.0.2", "10.0.0.2"), ("z", "10.0.0.3")],
    "x=[fd00::1],y=fd00::2,z=[fd00::3]": [("x", "fd00::1"), ("y", "fd00::2"), ("z", "fd00::3")],
}
BAD = {
    "a,b": "name 1, 3, 5 or 7 of them",
    "a,b,c,d": "name 1, 3, 5 or 7 of them: 4 survive the loss of no more than 3 do",
    "a,b,c,d,e,f,g,h,i": "name 7 of them at most",
    "a,a,b": "name a only once",
    "a,A,b": "name a only once",
    "x=a,x=b,c": "name x only once",
    "x=a,y=a,c": "name a only once",
    "a,,c": "between two commas",
    "a,b,c,": "between two commas",
    ",": "between two commas",
    "http://a:2380,b,c": "instead of 'http://a:2380'",
    "a:2380,b,c": "ports have their own settings",
    "a b c": "instead of 'a b c'",
    "a;b;c": "instead of 'a;b;c'",
    "=a,b,c": "instead of '=a'",
    "x=,b,c": "instead of 'x='",
    "x=y=a,b,c": "instead of 'x=y=a'",
}


@pytest.mark.parametrize("text", GOOD)
def test_what_it_takes(text: str) -> None:
    assert members(text) == tuple(Member(*pair) for pair in GOOD[text])


@pytest.mark.parametrize("text", BAD)
def test_what_it_does_not_take(text: str, tmp_path: Path) -> None:
    (line,) = problems({"GLM47_ETCD_MEMBERS": text}, tmp_path)
    assert line.startswith("cannot use GLM47_ETCD_MEMBERS: ") and BAD[text] in line


def test_nothing_is_no_list(tmp_path: Path) -> None:
    assert load({}, tmp_path).settings.etcd_members is None
