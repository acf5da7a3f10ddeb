"""How a member without data comes to the others, by what they say of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from entrypoint.supervise.discovery.joining import Ask, Known, asked_for, cluster, has_data, option

OWN, OTHER, THIRD = "http://a:2380", "http://b:2380", "http://c:2380"
B, C = Known("2", "b", (OTHER,), True), Known("3", "c", (THIRD,), True)
CASES: dict[str, tuple[list[Known], Ask | None]] = {
    "a first start of all": ([Known("1", "a", (OWN,), False), Known("2", "b", (OTHER,), False)], None),
    "it has lost its data": ([Known("1", "a", (OWN,), True), B, C], Ask("1", add=True)),
    "its name has changed": ([Known("1", "x", (OWN,), True), B, C], Ask("1", add=True)),
    "somebody has taken it out": ([B, C], Ask(None, add=True)),
    "and added it": ([Known("1", "", (OWN,), False), B, C], Ask(None, add=False)),
    "a single member from before, on its loopback": (
        [Known("9", "glm47", ("http://127.0.0.1:2380",), True)],
        Ask(None, add=True),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_it_asks_for(case: str) -> None:
    listed, wanted = CASES[case]
    assert asked_for(listed, OWN) == wanted


def test_names_are_ours_where_etcd_has_none() -> None:
    listed = [B, Known("1", "", (OWN,), False), Known("7", "", ("http://d:2380",), False)]
    assert cluster(listed, {OWN: "a", OTHER: "b"}) == f"b={OTHER},a={OWN},7=http://d:2380"


def test_data_are_a_log(tmp_path: Path) -> None:
    assert not has_data(tmp_path / "none")
    (tmp_path / "member" / "snap").mkdir(parents=True)
    (tmp_path / "member" / "snap" / "db").touch()
    assert not has_data(tmp_path)
    (tmp_path / "member" / "wal").mkdir()
    assert not has_data(tmp_path)
    (tmp_path / "member" / "wal" / "0-0.wal").touch()
    assert has_data(tmp_path)


def test_an_option_is_found_by_its_whole_name() -> None:
    argv = ["etcd", "--initial-cluster-token=x", "--initial-cluster=a=http://a:2380"]
    assert option(argv, "--initial-cluster") == "a=http://a:2380"
