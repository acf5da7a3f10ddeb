"""What a node of a Slurm job makes of its environment."""

from __future__ import annotations

from typing import Any

import pytest

from entrypoint.errors import ConfigError
from entrypoint.node import placement, slurm
from entrypoint.node.job_ports import job_ports
from entrypoint.settings.schema import Settings

ENV = {
    "SLURM_JOB_ID": "1234",
    "SLURM_JOB_NODELIST": "nvl72d[001-006]",
    "SLURMD_NODENAME": "nvl72d005",
    "SLURM_NODEID": "4",
    "SLURM_LOCALID": "0",
}
LAYOUT: dict[str, Any] = {"prefill_workers": 1, "prefill_nodes": 4, "decode_nodes": 2}


def job(environ: dict[str, str] | None = None, **settings: Any) -> slurm.Job:
    return slurm.job_of({**ENV, **(environ or {})}, Settings(**{**LAYOUT, **settings}))


def test_only_auto_in_a_task_or_a_batch_script() -> None:
    assert slurm.applies(ENV, Settings())
    assert not slurm.applies(ENV, Settings(role="decode"))
    assert not slurm.applies({}, Settings())
    assert slurm.applies({"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_PROCID": "0"}, Settings())
    shell = {k: v for k, v in ENV.items() if k in ("SLURM_JOB_ID", "SLURM_JOB_NODELIST")}
    assert not slurm.applies(shell, Settings()), "salloc's shell runs on no node of the job"


def test_the_nodes_name_decides_and_its_number_without_it() -> None:
    assert job().node.label == "decode worker 0 rank 0"
    # A step over some of the nodes counts them anew.
    assert job({"SLURM_NODEID": "0"}).node.name == "nvl72d005"
    assert job({"SLURMD_NODENAME": ""}).node.name == "nvl72d005"


def test_a_step_on_part_of_the_job_has_its_own_nodes() -> None:
    step = {
        "SLURM_STEP_NODELIST": "nvl72d[005-006]",
        "SLURM_STEP_ID": "3",
        "SLURM_STEP_NUM_NODES": "2",
        "SLURM_JOB_NUM_NODES": "6",
        "SLURM_NODEID": "1",
        "SLURMD_NODENAME": "nvl72d006",
    }
    found = job(step, prefill_workers=0, decode_nodes=2)
    assert [n.name for n in found.topology.nodes] == ["nvl72d005", "nvl72d006"]
    assert (found.node.name, found.node.rank, found.nodes_from) == ("nvl72d006", 1, "SLURM_STEP_NODELIST")
    assert job({**step, "SLURMD_NODENAME": ""}, prefill_workers=0).node.name == "nvl72d006"
    # The whole job's layout does not fit the step, and the message names what was read.
    with pytest.raises(ConfigError, match="too few nodes, 2"):
        job(step)
    with pytest.raises(ConfigError, match=r"cannot read SLURM_STEP_NODELIST: n\[1-:"):
        job({**step, "SLURM_STEP_NODELIST": "n[1-"})
    with pytest.raises(ConfigError, match="SLURM_STEP_NODELIST has 2 nodes"):
        job({**step, "SLURMD_NODENAME": "", "SLURM_NODEID": "5"}, prefill_workers=0)


@pytest.mark.parametrize("number", ["4294967290", "4294967291", "4294967292"])
def test_slurms_own_steps_are_no_steps_of_the_deployment(number: str) -> None:
    """Interactive shell, batch script, extern: they are on one node, and the job is on all."""
    step = {"SLURM_STEP_NODELIST": "nvl72d005", "SLURM_STEP_ID": number}
    assert len(job(step).topology.nodes) == 6


def test_ports_and_run_directory_are_the_jobs_own_unless_given() -> None:
    shared = slurm.shared_values(ENV, Settings(http_port=8000))
    assert shared.pop("run_dir") == "/tmp/glm47-runner-1234"
    assert shared.pop("server_timeout") > Settings().start_timeout
    ports = job_ports(1234)
    assert shared == {name: ports[name] for name in ports if name != "http_port"}
    again = slurm.shared_values({**ENV, "SLURM_RESTART_COUNT": "2"}, Settings())
    assert again["run_dir"] == "/tmp/glm47-runner-1234.2"
    assert slurm.shared_values({"SLURM_JOB_NODELIST": "n1"}, Settings()).keys() == {"server_timeout"}
    assert "run_dir" not in slurm.shared_values(ENV, Settings(run_dir="/scratch"))


@pytest.mark.parametrize("head", [None, "10.1.1.1"])
def test_the_place_of_one_node(head: str | None) -> None:
    given = Settings(head_address=head)
    found = placement.in_job(
        job({"SLURMD_NODENAME": "nvl72d006"}), given, lambda peer, interface: "10.0.0.6", lambda name: None
    )
    assert (found.nnodes, found.node_rank, found.leader_address) == (2, 1, "nvl72d005")
    assert (found.head_address, found.node_address) == (head or "nvl72d001", "10.0.0.6")
    assert found.job is not None and found.job.topology.decode_workers == 1


@pytest.mark.parametrize(
    ("environ", "settings", "reason"),
    [
        ({"SLURM_JOB_NODELIST": "n[1-"}, {}, "cannot read SLURM_JOB_NODELIST: n[1-: ']' is missing"),
        ({"SLURM_LOCALID": "1"}, {}, "the layout has one worker on a node: use srun --ntasks-per-node=1"),
        ({"SLURM_LOCALID": "x"}, {}, "cannot use SLURM_LOCALID: x"),
        ({"SLURM_JOB_ID": "x"}, {}, "cannot use SLURM_JOB_ID: x"),
        ({"SLURMD_NODENAME": "", "SLURM_NODEID": "9"}, {}, "cannot use SLURM_NODEID: 9"),
        ({}, {"nnodes": 2, "node_rank": 1}, "cannot use GLM47_NNODES, GLM47_NODE_RANK with ROLE=auto"),
        ({}, {"prefill_nodes": 5}, "the job has too few nodes, 6"),
    ],
)
def test_refusals(environ: dict[str, str], settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError) as error:
        job(environ, **settings)
    assert reason in str(error.value)


def watched(name: str, **settings: Any) -> list[str]:
    found = slurm.neighbours(job({"SLURMD_NODENAME": name}, **settings))
    return [node.name.removeprefix("nvl72d00") for node in found]


def test_who_watches_whom() -> None:
    assert watched("nvl72d001") == ["2", "3", "4", "5"], "the head: its followers and the other leader"
    assert watched("nvl72d003") == ["1"], "a follower: its leader"
    assert watched("nvl72d005") == ["1", "6"], "a leader: the head and its followers"
    assert watched("nvl72d006") == ["5"]


def test_stops_go_from_nginx_to_the_last_rank() -> None:
    def after(name: str, process: str) -> tuple[tuple[str, str], ...]:
        return slurm.stops_after(job({"SLURMD_NODENAME": name}, nginx=True, frontends=2), process)

    assert after("nvl72d005", "decode") == (("nvl72d001", "frontend"), ("nvl72d004", "frontend"))
    assert after("nvl72d006", "decode") == (("nvl72d005", "decode"),)
    assert after("nvl72d001", "prefill") == (("nvl72d004", "frontend"),)
    assert after("nvl72d004", "frontend") == (("nvl72d001", "nginx"),)
    assert after("nvl72d001", "frontend") == after("nvl72d001", "etcd") == ()


def test_a_name_that_does_not_resolve_is_said_at_once() -> None:
    settings = Settings(head_address="no-such-node.invalid", leader_address="no-such-node.invalid", **LAYOUT)
    found = placement.in_job(job({"SLURMD_NODENAME": "nvl72d006"}), settings, lambda *_: "10.0.0.6")
    assert found.unmet[0].startswith("cannot resolve the node's name: no-such-node.invalid: ")


def test_the_interface_must_be_there() -> None:
    settings = Settings(interface="nosuch0", **LAYOUT)
    found = placement.in_job(job(), settings, unresolved=lambda name: None)
    assert found.unmet == (
        "cannot use GLM47_INTERFACE: nosuch0: it has no address here that others can reach: "
        "name one of `ip -brief address`, or unset it",
    )
    found = placement.in_job(job(), Settings(interface="lo", **LAYOUT), unresolved=lambda name: None)
    assert found.node_address == "127.0.0.1"


def test_log_files_carry_node_role_and_worker() -> None:
    found = slurm.log_names(job(), ("decode", "frontend"))
    assert found == {
        "decode": "nvl72d005_decode_w0",
        "frontend": "nvl72d005_frontend",
        "runner": "nvl72d005_runner",
    }
