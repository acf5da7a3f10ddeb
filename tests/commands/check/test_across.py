"""What nodes say together: the bad one is named, what all have is the job's, names prove no NVLink domain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from entrypoint.commands.check.across import Report, Together, render, together
from entrypoint.commands.check.findings import ok, problem, warning
from entrypoint.node.topology import Topology, lay_out

NAMES = tuple(f"n{number}" for number in range(1, 7))
TOPOLOGY = lay_out(NAMES, prefill_workers=2, prefill_nodes=2, decode_workers=1, decode_nodes=2)
SOUND = Report("", (ok("GPUs", "4"),), 4, ("NVIDIA GB200",), "580.95.05", (("00ff", 7),), 4, 2e9, 0.0, 0.001)


def job(changed: dict[str, dict[str, Any] | None], topology: Topology = TOPOLOGY) -> Together:
    """Sound nodes but for those in `changed`; None: it never reported."""
    reports = [
        replace(SOUND, node=name, **(changed.get(name) or {}))
        for name in (node.name for node in topology.nodes)
        if changed.get(name, {}) is not None
    ]
    return together(reports, topology, 60.0)


def named(found: Together, state: str) -> dict[str, list[str]]:
    return {
        r.node: texts for r in found.reports if (texts := [f.text for f in r.findings if f.state == state])
    }


def test_sound_nodes() -> None:
    found = job({})
    assert (found.exclude, found.exit_code) == ((), 0)
    assert named(found, "problem") == named(found, "warning") == {}
    assert "`run` can start on every node" in render(found)
    assert [r.node for r in found.reports] == [*NAMES]


BAD: dict[str, tuple[dict[str, Any] | None, str, str]] = {
    "a lost GPU": ({"findings": (problem("GPU 1", "cannot use GPU 1: lost: reset it"),)}, "problem", "lost"),
    "silent": (None, "problem", "sent nothing in 60 s"),
    "fewer adapters": ({"adapters": 3}, "problem", "3 up, most nodes have 4"),
    "slow": ({"rate": 0.9e9}, "warning", "0.90 GB/s, the median node 2.00"),
    "its clock is ahead": ({"clock": 5.0}, "warning", "5.0 s ahead"),
    "its clock is behind": ({"clock": -90.0}, "warning", "90.0 s behind"),
    "another driver": ({"driver": "570.1"}, "warning", "570.1, most nodes have 580.95.05"),
    "another GPU": ({"gpu_names": ("NVIDIA B200",)}, "warning", "NVIDIA B200, most nodes have NVIDIA GB200"),
    "another clique": ({"cliques": (("00ff", 8),)}, "problem", "n4: it is in another clique"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_the_bad_node_comes_first_and_alone(name: str) -> None:
    change, state, text = BAD[name]
    found = job({"n4": change})
    assert found.reports[0].node == "n4"
    assert list(named(found, state)) == ["n4"] and text in named(found, state)["n4"][0]
    assert render(found).splitlines()[1].startswith("n4 ")
    if state == "problem":
        assert found.exclude == ("n4",) and found.exit_code
        assert "leave out: --exclude=n4" in render(found)
    else:
        assert found.exclude == () and found.exit_code == 0
        assert "--exclude" not in render(found)


def test_what_most_nodes_have_leaves_none_out() -> None:
    bad = {
        "findings": (
            problem(
                "model",
                "cannot use the model: /model: mount it",
            ),
        )
    }
    found = job(dict.fromkeys(NAMES, bad))
    assert found.exclude == () and found.exit_code == 78
    assert "all 6 nodes: problem: model" in render(found)
    assert render(found).count("mount it") == 1


def test_settings_are_no_fault_of_a_node() -> None:
    assert job({"n2": {"findings": (problem("settings", "cannot use X: y: z"),)}}).exclude == ()


def test_problems_before_warnings() -> None:
    found = job({
        "n2": {"findings": (warning("memlock", "a"), warning("nofile", "b"))},
        "n5": {"findings": (problem("cache", "cannot write /c: x: y"),)},
    })  # fmt: skip
    assert [r.node for r in found.reports][:2] == ["n5", "n2"]


def test_a_head_whose_clock_is_wrong_is_the_one_named() -> None:
    found = job({name: {"clock": 7.0} for name in NAMES[1:]})
    assert list(named(found, "warning")) == ["n1"]


def test_a_slow_way_to_the_head_is_no_clock_that_is_wrong() -> None:
    assert named(job({"n3": {"clock": 1.5, "clock_error": 0.8}}), "warning") == {}


def test_nvlink_domains_are_told_by_cliques() -> None:
    found = job({name: {"cliques": (("00ff", 8),)} for name in ("n5", "n6")})
    assert found.domains == "n1,n2,n3,n4 n5,n6" and named(found, "problem") == {}
    again = lay_out(
        NAMES,
        prefill_workers=2,
        prefill_nodes=2,
        decode_workers=1,
        decode_nodes=2,
        nvlink_domains=found.domains,
    )
    assert again.warnings == ()


def test_without_cliques_nothing_is_said_of_domains() -> None:
    found = job({"n5": {"cliques": ()}})
    assert found.domains is None and named(found, "problem") == {}


def test_one_node_alone_is_left_out_for_its_own_fault() -> None:
    alone = lay_out(("n1",))
    assert job({"n1": {"findings": (problem("GPU 0", "cannot use GPU 0: x: y"),)}}, alone).exclude == ("n1",)


def test_workers_that_share_a_node_are_one_row() -> None:
    shared = lay_out(NAMES[:3], prefill_workers=4, prefill_workers_per_node=2, decode_nodes=1)
    reports = [replace(SOUND, node=name) for name in NAMES[:3]]
    found = together(reports, shared, 60.0)
    assert [report.node for report in found.reports] == [*NAMES[:3]]
    assert found.holds == {
        "n1": "prefill workers 0, 1", "n2": "prefill workers 2, 3", "n3": "decode worker 0 rank 0",
    }  # fmt: skip
    assert found.domains == "n1,n2,n3"
