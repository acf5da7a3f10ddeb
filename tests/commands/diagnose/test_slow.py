"""A node that was slow in a start: in the timeline always, the first sign where that was over its time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from entrypoint.commands.diagnose import logs, report
from entrypoint.commands.diagnose.live import Node, findings
from entrypoint.commands.diagnose.logs import Diagnosis
from entrypoint.supervise.status import held, told

SLOW = (
    "decode: rank 3 of 8 (node n3) is slow since 02:11:40Z: loading weights for 4 min, the other 7 took "
    "118 s and wait: it reads 0.2 GB/s, the others 2.1 GB/s"
)
OVER = "decode: node n3 has caught up: loading weights took it 14 min"
LATE = "stopping: cannot start: decode is not ready after 2400 s: raise GLM47_START_TIMEOUT"
KILLED = "decode ended: killed by SIGKILL (137)"


def dead(directory: Path, *lines: tuple[int, str, str]) -> Diagnosis:
    """Of a job whose runners said this: the minute, the node, and the line."""
    for node in ("n0", "n3", "n5"):
        events = [{"ts": "2026-11-29T02:00:00.000Z", "process": "decode", "state": "running"}]
        events += [
            {"ts": f"2026-11-29T02:{m:02}:00.000Z", "line": text} for m, who, text in lines if who == node
        ]
        text = "".join(json.dumps(event) + "\n" for event in events)
        (directory / f"{node}_runner.events.jsonl").write_text(text)
    found = logs.diagnose(directory)
    print(report.text(found))
    return found


def test_a_start_over_its_time_is_the_slow_nodes(tmp_path: Path) -> None:
    found = dead(tmp_path, (14, "n0", SLOW), (40, "n0", LATE))
    first = found.judgement.first
    assert first is not None
    assert (first.node, first.process, first.kind) == ("n3", "decode", "slow")
    assert "it reads 0.2 GB/s, the others 2.1 GB/s" in first.what
    assert [each.kind for each in found.judgement.followed] == ["start too slow"]


def test_one_that_has_caught_up_is_not_to_blame(tmp_path: Path) -> None:
    found = dead(tmp_path, (14, "n0", SLOW), (20, "n0", OVER), (40, "n0", LATE))
    first = found.judgement.first
    assert first is not None and first.kind == "start too slow"
    assert [line.text for line in found.timeline if line.text in (SLOW, OVER)] == [SLOW, OVER]


@pytest.mark.parametrize("end", (35, 15))
def test_another_cause_stays_the_cause(tmp_path: Path, end: int) -> None:
    found = dead(tmp_path, (14, "n0", SLOW), (end, "n5", KILLED))
    first = found.judgement.first
    assert first is not None and (first.node, first.kind) == ("n5", "killed")
    assert SLOW in [line.text for line in found.timeline]


def test_a_living_one() -> None:
    slow = {"process": "decode", "step": "weights", "node": "n3", "text": SLOW}
    status = told.status(held.status(78, "no") | {"time": 5.0, "slow": [slow]})
    (found,) = findings([Node("http://n0:9480", "n0", status=status)], {})
    assert (found.node, found.process, found.kind, found.at) == ("n3", "decode", "slow", 5.0)
