"""A control group's processor quota that is used up: found in each layout of the files, and told once."""

from __future__ import annotations

from pathlib import Path

import pytest

from entrypoint.supervise.watchdog import quota
from entrypoint.supervise.watchdog.quota import Quotas, groups_of, read

STAT = "usage_usec 1\nnr_periods {periods}\nnr_throttled {throttled}\nthrottled_usec 9\n"


def put(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("lines", "stats", "expected"),
    [
        ("0::/pod/engine\n", ("pod/engine", "pod", ""), ["pod/engine", "pod", ""]),
        ("0::/\n", ("",), [""]),
        ("0::/a/path/of/the/host\n", ("",), [""]),
        ("4:memory:/m\n3:cpu,cpuacct:/docker/x\n", ("cpu,cpuacct/docker/x",), ["cpu,cpuacct/docker/x"]),
        ("3:cpu:/docker/x\n1:name=systemd:/y\n", ("cpu",), ["cpu"]),
        ("4:memory:/m\n", ("",), []),
    ],
    ids=["v2", "v2 in a container", "v2, the host's path", "v1", "v1 in a container", "none"],
)
def test_groups_are_found(tmp_path: Path, lines: str, stats: tuple[str, ...], expected: list[str]) -> None:
    put(tmp_path / "proc" / "7" / "cgroup", lines)
    root = tmp_path / "cgroup"
    for place in stats:
        put(root / place / "cpu.stat", STAT.format(periods=1, throttled=0))
    found = [*groups_of(7, tmp_path / "proc", root)]
    assert found == [root / place / "cpu.stat" for place in expected]
    assert [*groups_of(8, tmp_path / "proc", root)] == []


def test_a_group_without_a_quota_says_nothing(tmp_path: Path) -> None:
    assert read(put(tmp_path / "a", STAT.format(periods=0, throttled=0))) is None
    assert read(put(tmp_path / "b", "usage_usec 5\n")) is None
    assert read(tmp_path / "none") is None


def test_it_is_told_once_and_again_after_it_was_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cpu.stat"
    monkeypatch.setattr(quota, "groups_of", lambda pid: iter([file]))
    quotas = Quotas()

    def look(periods: int, throttled: int) -> float | None:
        put(file, STAT.format(periods=periods, throttled=throttled))
        return quotas.look(iter([1]))

    assert look(10_000, 9_000) is None, "what was before is not counted"
    assert look(10_100, 9_050) is None, "half of the time is common"
    assert look(10_200, 9_140) == 0.9
    assert look(10_300, 9_240) is None, "told already"
    assert look(10_310, 9_250) is None, "it hardly ran"
    assert look(10_410, 9_250) is None
    assert look(10_510, 9_350) == 1.0
