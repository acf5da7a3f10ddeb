"""Whatever the environment says: a plan, or lines to act on."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from entrypoint.errors import ConfigError, ExitCode, RunnerError
from entrypoint.load import load_plan
from entrypoint.plan.text import text
from entrypoint.plan.types import to_jsonable
from entrypoint.settings.schema import Settings

OWN = ["ROLE", *(f"GLM47_{name.upper()}" for name in Settings.model_fields)]
SLURM = (
    "SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURM_NODELIST", "SLURM_NODEID", "SLURM_PROCID", "SLURM_LOCALID",
    "SLURM_NTASKS", "SLURM_NNODES", "SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_ID",
    "SLURMD_NODENAME", "SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE", "SLURM_ARRAY_TASK_ID",
    "SLURM_JOB_END_TIME",
)  # fmt: skip
KUBERNETES = (
    "LWS_LEADER_ADDRESS", "LWS_GROUP_SIZE", "LWS_WORKER_INDEX", "POD_NAME", "POD_NAMESPACE", "POD_IP",
    "POD_UID",
    "HOST_IP", "KUBERNETES_SERVICE_HOST", "GROVE_PCSG_INDEX", "GROVE_PCLQ_POD_INDEX",
    "GROVE_HEADLESS_SERVICE",
)  # fmt: skip
NATIVE = (
    "ETCD_ENDPOINTS", "NATS_SERVER", "DYN_NAMESPACE", "DYN_COMPONENT", "DYN_DISCOVERY_BACKEND",
    "DYN_SYSTEM_PORT",
    "DYN_HTTP_PORT", "DYN_REQUEST_PLANE", "DYN_EVENT_PLANE", "DYN_STORE_KV", "DYN_FILE_KV", "SGLANG_HOST_IP",
    "DYN_PARENT_DGD_K8S_NAME", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "NCCL_SOCKET_IFNAME",
    "PYTHONPATH", "HOSTNAME", "HOME", "TMPDIR", "PATH",
)  # fmt: skip
VALUES = (
    "", "0", "1", "2", "-1", "4", "16", "99999", "1e9", "1.5", "nan", "inf", "0x10", "\uff11", " 1 ", "1,",
    "true", "off", "auto", "none", "x", "a,b", "é", "a b", "a\nb", "\x1b[2J", "x" * 3000, "{}", "null",
    "n1", "n[1-3]", "n[001-006]", "n[1-", "n[3-1]", "[", "(2)", "2(x3)", "4(x2),1", "0,1,2,3", "GPU-x",
    "::1", "127.0.0.1", "127.0.0.1:80", "h:99999", "http://h:2379", "http://h:2379,http://i:2379",
    "http://[::1", "nats://h:4222", "nats://u:hush-hush@h:4222", "http://u:hush-hush@h:2379",
    "etcd", "file", "mem", "kubernetes", "tcp", "zmq", "nats", "mocker", "sglang", "nixl", "mooncake",
    "prefill", "decode", "frontend", "single", "prefill,decode", "etcd,nats", "all",
    "/", "/tmp", "/nonexistent", ".", "--x", '--x=1 "y', "$(x)", "10s", "5m", "glm-4.7", "fp8",
    "original", "balanced", "latency", "throughput",
)  # fmt: skip
ROLES = ("decode", "prefill", "frontend", "single", "etcd", "nats", "auto", "prefill,decode",
         "etcd,nats,frontend,decode", "aggregated")  # fmt: skip


def environment(chance: random.Random) -> dict[str, str]:
    """A role and up to eight variables, most of them of one kind."""
    kind = chance.choice((OWN, SLURM, KUBERNETES, NATIVE))
    names = [chance.choice(kind if chance.random() < 0.7 else OWN) for _ in range(chance.randint(1, 8))]
    return {"ROLE": chance.choice(ROLES), **{name: chance.choice(VALUES) for name in names}}


@pytest.mark.parametrize("seed", range(300))
def test_a_plan_or_lines_to_act_on(seed: int, tmp_path: Path) -> None:
    environ = environment(random.Random(seed))
    try:
        plan = load_plan(environ, tmp_path).plan
    except RunnerError as error:
        assert error.exit_code in (ExitCode.CONFIG, ExitCode.MODEL, ExitCode.OK)
        lines = error.problems if isinstance(error, ConfigError) else tuple(str(error).splitlines())
        assert lines and all(line.startswith("cannot ") or error.exit_code == ExitCode.OK for line in lines)
        shown = str(error)
    else:
        shown = text(plan)
        assert [process.name for process in plan.processes] or plan.unmet
        assert to_jsonable(plan)["roles"]
    assert "hush-hush" not in shown
    assert not [c for c in shown if c != "\n" and (ord(c) < 32 or 127 <= ord(c) < 160)]
