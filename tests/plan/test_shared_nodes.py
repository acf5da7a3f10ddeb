"""Several workers of a role on one node: whatever the layout, each has its own of everything."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrypoint.errors import ConfigError, SpareTaskError
from entrypoint.node import slurm
from entrypoint.node.facts import Facts
from entrypoint.node.job_ports import SLOTS
from entrypoint.plan.types import Plan
from entrypoint.settings.schema import Settings
from tests.plan.deployments import FOUR, NEWER, PINNED, SHARED, Container, build, node

PORTS = st.sampled_from([8000, 8081, 9480, 9490, 20000, 30001])


def deployment(layout: dict[str, Any], nodes: int, **given: Any) -> dict[tuple[int, int], Plan]:
    """The plan of every container, by node and task; tasks without a worker have none."""
    names, plans = f"n[1-{nodes}]", {}
    most = max(layout.get("prefill_workers_per_node", 1), layout.get("decode_workers_per_node", 1))
    for index in range(nodes):
        for slot in range(most):
            container = Container(layout, node(index, names, slot), facts=NEWER, **given)
            try:
                plans[index, slot] = build(container)
            except SpareTaskError as spare:
                assert slot and spare.exit_code == 0
    return plans


@st.composite
def layouts(draw: st.DrawFn) -> tuple[dict[str, Any], int]:
    """A layout and how many nodes it takes."""
    gpus = draw(st.sampled_from([4, 8]))
    per = {role: draw(st.sampled_from([n for n in (1, 2, 4, 8) if n <= gpus])) for role in "pd"}
    nodes = {role: draw(st.integers(1, 2)) if per[role] == 1 else 1 for role in "pd"}
    workers = {"p": draw(st.integers(0, 6)), "d": draw(st.integers(1, 6))}
    layout = {
        "gpus_per_node": gpus,
        "prefill_workers": workers["p"], "prefill_nodes": nodes["p"], "prefill_workers_per_node": per["p"],
        "decode_workers": workers["d"], "decode_nodes": nodes["d"], "decode_workers_per_node": per["d"],
        "engine": draw(st.sampled_from(["sglang", "mocker"])), "allow_wrong_layout": True,
    }  # fmt: skip
    for name in ("health_port", "system_port", "bootstrap_port", "http_port"):
        if draw(st.booleans()):
            layout[name] = draw(PORTS)
    return layout, sum(-(-workers[role] // per[role]) * nodes[role] for role in "pd")


@settings(max_examples=80, deadline=None)
@given(layouts())
def test_no_two_of_a_node_share_a_port_a_gpu_or_a_directory(drawn: tuple[dict[str, Any], int]) -> None:
    layout, nodes = drawn
    try:
        plans = deployment(layout, nodes)
    except ConfigError as error:
        # Ports that were given may meet, and that alone.
        assert all(re.match(r"cannot use (port \d+ twice|GLM47_\w+_PORT)", line) for line in error.problems)
        return
    held: Counter[str] = Counter()
    for index in range(nodes):
        here = [plan for (at, _), plan in plans.items() if at == index]
        ports = [port for plan in here for port in plan.ports]
        for number, port in enumerate(ports):
            assert not any(port.clashes(other) for other in ports[number + 1 :])
            assert 0 < port.number < 65536
        assert len({plan.run_dir for plan in here}) == len(here)
        logs = [name for plan in here for name in (plan.job.log_names.values() if plan.job else ())]
        assert len(set(logs)) == len(logs)
        # Frontends read the model where workers say it is, and kernels are compiled once.
        assert len({plan.model_path for plan in plans.values()}) == 1
        assert len({plan.cache_dir for plan in plans.values()}) == 1
        held.update(plan.job.what for plan in here if plan.job is not None)
        if layout["engine"] == "sglang":
            _gpus(here, layout["gpus_per_node"])
    assert set(held.values()) == {1}, "each worker is once in the deployment"
    _find_each_other(plans)


def _gpus(here: list[Plan], on_node: int) -> None:
    seen: list[str] = []
    for plan in here:
        (process,) = (p for p in plan.processes if p.name in ("prefill", "decode", "aggregated"))
        visible = process.env.get("CUDA_VISIBLE_DEVICES")
        assert (visible is None) == (len(here) == 1)
        if visible is not None:
            words = visible.split(",")
            tp = process.argv[process.argv.index("--tp-size") + 1]
            assert len(words) == int(tp) and "--base-gpu-id" not in process.argv
            assert [int(word) for word in words] == list(range(int(words[0]), int(words[-1]) + 1))
            seen += words
    assert len(set(seen)) == len(seen) and all(int(word) < on_node for word in seen)
    engines = [p.argv for plan in here for p in plan.processes if "dynamo.sglang" in p.argv]
    ports = [argv[argv.index("--port") + 1] for argv in engines if "--port" in argv]
    assert len(set(ports)) == len(ports) == len(here) - 1, "SGLang derives further ports from it"


def _find_each_other(plans: dict[tuple[int, int], Plan]) -> None:
    """Where a runner looks for another, that one listens; the head sees all, all are seen by somebody."""
    urls = {
        plan.health.url_from_outside(f"n{index + 1}"): plan.job.what  # type: ignore[union-attr]
        for (index, _), plan in plans.items()
    }
    asked: set[str] = set()
    for plan in plans.values():
        if plan.job is None:
            continue
        for peer in (*plan.job.peers, *plan.job.others):
            assert urls[peer.url] == peer.what
            asked.add(peer.url)
    assert len(plans) == 1 or asked == set(urls)
    frontend = next(p.ready for plan in plans.values() for p in plan.processes if p.name == "frontend")
    if getattr(frontend, "workers_port", None) is not None:
        known = {frontend.workers_port, *(n for more in frontend.further_ports.values() for n in more)}  # type: ignore[union-attr]
        assert known >= {plan.health.number for plan in plans.values()}


@pytest.mark.parametrize(
    ("nodes", "layout"),
    [
        (4, SHARED),
        # The original's last state, on nodes of four GPUs and of eight.
        (10, {"prefill_workers": 8, "decode_workers": 2}),
        (5, {"prefill_workers": 8, "prefill_workers_per_node": 2, "decode_workers": 2,
             "decode_workers_per_node": 2, "gpus_per_node": 8}),
        # One node: both workers aggregated, etcd beside the first.
        (1, {"decode_workers_per_node": 2}),
        # Prefill TP 2, decode TP 8 over two nodes: right from 0.5.6.post2 on.
        (3, {"prefill_workers": 2, "prefill_workers_per_node": 2, "decode_workers": 1, "decode_nodes": 2}),
    ],
)  # fmt: skip
def test_layouts_that_people_run(nodes: int, layout: dict[str, Any]) -> None:
    plans = deployment({**layout, "allow_wrong_layout": False}, nodes)
    wanted = layout.get("prefill_workers", 0) + (layout.get("decode_workers") or 2)
    ranks = [plan for plan in plans.values() if plan.rank == 0]
    assert len(ranks) == wanted
    frontend = plans[0, 0].process("frontend").ready
    assert (frontend.prefill, frontend.backend) == (  # type: ignore[union-attr]
        layout.get("prefill_workers", 0), layout.get("decode_workers") or 2,
    )  # fmt: skip


def refused(layout: dict[str, Any], index: int = 0, slot: int = 0, **given: Any) -> str:
    with pytest.raises(ConfigError) as error:
        build(Container(layout, node(index, FOUR, slot), facts=given.pop("facts", NEWER), **given))
    (line,) = error.value.problems
    return line


def test_contradictions_are_one_line_each() -> None:
    assert refused({**SHARED, "tp": 4}).startswith(
        "cannot use GLM47_PREFILL_WORKERS_PER_NODE: 2: workers of 4 GPUs (GLM47_TP) take 8 of a node's 4: "
        "use at most 1, or lower GLM47_TP"
    )
    three = {**SHARED, "prefill_workers": 6, "prefill_workers_per_node": 3}
    assert refused(three).startswith(
        "cannot use GLM47_PREFILL_WORKERS_PER_NODE: 3: 4 GPUs (GLM47_GPUS_PER_NODE) do not divide by it: "
        "use one of 1, 2, 4, or set GLM47_TP"
    )
    assert "workers of several nodes take whole nodes" in refused({**SHARED, "prefill_nodes": 2})
    assert f"use at most {SLOTS}" in refused({**SHARED, "prefill_workers_per_node": 9})
    assert "GLM47_PREFILL_WORKERS 4 / GLM47_PREFILL_WORKERS_PER_NODE 2 + " in refused(
        {**SHARED, "decode_nodes": 3}
    )


def test_ports_that_meet_are_one_line() -> None:
    line = refused({**SHARED, "health_port": 9480, "system_port": 9487})
    assert line.startswith("cannot use port 9487 twice on nvl72d001: GLM47_SYSTEM_PORT (prefill) and ")
    assert line.endswith("GLM47_HEALTH_PORT of prefill worker 1 rank 0: change one of them")
    line = refused(SHARED, native={"DYN_SYSTEM_PORT": "9090"})
    assert line.startswith("cannot use DYN_SYSTEM_PORT: 9090: all 2 workers of nvl72d001 would bind it")
    extra = {"prefill_extra_args": "--disaggregation-bootstrap-port 31000"}
    assert "--disaggregation-bootstrap-port: 31000: all 2 workers" in refused({**SHARED, **extra})
    assert "would have 65542: give a lower one" in refused({**SHARED, "health_port": 65535})


def test_gpus_that_are_not_there_are_one_line() -> None:
    line = refused(SHARED, facts=replace(NEWER, gpus=("CUDA_VISIBLE_DEVICES", 2)))
    assert "the ranks of this node take 4 GPUs, and CUDA_VISIBLE_DEVICES gives 2" in line
    assert "counts them from 0: leave it out" in refused({**SHARED, "prefill_extra_args": "--base-gpu-id 2"})


def test_a_node_that_is_not_full_is_warned_of() -> None:
    plan = build(Container({**SHARED, "prefill_workers": 3}, node(0, FOUR), facts=NEWER))
    assert any(
        "nvl72d002 holds 1 of 2 prefill workers: its other GPUs stay idle" in text for text in plan.warnings
    )


def test_a_runner_is_a_task_and_says_how_many_are_needed() -> None:
    few = {**node(0, FOUR), "SLURM_STEP_TASKS_PER_NODE": "1(x4)"}
    plan = build(Container(SHARED, few, facts=NEWER))
    assert plan.unmet == (
        "cannot start 2 workers on a node: SLURM_STEP_TASKS_PER_NODE=1(x4): each is a task of its own: "
        "use srun --ntasks-per-node=2",
    )
    enough = {**few, "SLURM_STEP_TASKS_PER_NODE": "2(x4)"}
    assert build(Container(SHARED, enough, facts=NEWER)).unmet == ()
    with pytest.raises(SpareTaskError, match=r"nothing to do: nvl72d003 has 1 of up to 2 workers: task 1"):
        build(Container(SHARED, node(2, FOUR, 1), facts=NEWER))
    assert "at most 2 workers on a node: use srun --ntasks-per-node=2" in refused(SHARED, slot=2)


def test_a_given_directory_and_given_ports_are_the_first_workers() -> None:
    own = {**SHARED, "run_dir": "/scratch", "health_port": 9480}
    first, second = (build(Container(own, node(0, FOUR, slot), facts=NEWER)) for slot in (0, 1))
    assert (first.run_dir, second.run_dir) == ("/scratch", "/scratch/worker-1")
    assert second.job is not None and second.job.shared_dir == "/scratch"
    assert (first.health.number, second.health.number) == (9480, 9487)


@given(st.integers(0, 3000), st.integers(0, SLOTS - 1), st.integers(0, SLOTS - 1))
def test_job_ports_of_slots_never_meet(job: int, one: int, other: int) -> None:
    def ports(slot: int) -> set[int]:
        environ = {"SLURM_JOB_ID": str(job), "SLURM_LOCALID": str(slot)}
        values = slurm.shared_values(environ, Settings())
        taken = {
            value
            for name, value in values.items()
            if name in ("health_port", "system_port", "bootstrap_port")
        }
        servers = (
            {values[name] for name in values if name.endswith("_port")} - taken - {values["dist_init_port"]}
        )
        return taken | (servers if slot == 0 else set())

    assert all(10000 <= port < 32768 for port in ports(one))
    assert one == other or not ports(one) & ports(other)


@pytest.mark.parametrize(("facts", "fits"), [(PINNED, False), (NEWER, True)])
def test_decode_of_dp_and_ep_16_on_four_nodes(facts: Facts, fits: bool) -> None:
    """sbatch/README.md has these settings."""
    words = "--moe-runner-backend flashinfer_cutedsl --moe-a2a-backend deepep --deepep-mode low_latency"
    layout = {
        "prefill_workers": 4, "decode_workers": 1, "decode_nodes": 4, "dp": 16, "decode_extra_args": words,
    }  # fmt: skip
    for index in range(8):
        container = Container(layout, node(index, "n[1-8]"), facts=facts)
        if fits:
            build(container)
            continue
        with pytest.raises(ConfigError) as error:
            build(container)
        assert all("cannot pair prefill and decode workers" in line for line in error.value.problems)
