"""Each known failure is recognised in a line as the stack writes it, and in no ordinary log."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from entrypoint.known_failures import KNOWN_FAILURES, failure_hint, lost_rank

LINES = {
    "bos-token": "missing bos_token_id in generation_config.json and config.json, cannot load: "
    "Field 'bos_token_id' not found in JSON file: \"/model/generation_config.json\"",
    "expert-parallel-scales": "RuntimeError: The size of tensor a (160) must match the size of tensor b (40) "
    "at non-singleton dimension 0",
    "modelopt-scale-width": "AssertionError: Expected w2_weight_scale.dim(2) to be divisible by 16",
    "modelopt-gated-padding": "AssertionError: The intermediate size required padding, but padding is also "
    "implemented for gated activations",
    "shuffle-padding": "    assert M % 128 == 0",
    "moe-routing": "AssertionError: flashinfer trtllm moe nvfp4 backend has not been adapted for the current "
    "moe layer, you can set routing_method_type",
    "unknown-parser": "dynamo.sglang: error: argument --dyn-tool-call-parser: invalid choice: 'glm47'",
    "model-not-visible": "Failed to fetch model '/model' from HuggingFace: 404",
    "port-taken": "Failed to bind server to address 0.0.0.0:8000: Address already in use (os error 98)",
    "shm-too-small": "NCCL WARN Error while creating shared memory segment /dev/shm/nccl-Qb3fXk (size 9)",
    "gpu-memory": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
    "nvls": "transport/nvls.cc:243 NCCL WARN Cuda failure 401 "
    "'the operation cannot be performed in the present state'",
    "cuda-ipc-imex": "cuda_ipc_md.c:161  UCX  ERROR cuda_ipc: cuMemImportFromShareableHandle failed",
    "ucx-lane": "ucp_ep.c UCX ERROR failed to select lane: no remote registered memory access transport",
    "nixl-disconnect": "nixl_cu12._bindings.nixlRemoteDisconnectError: NIXL_ERR_REMOTE_DISCONNECT",
    "nixl-backend": "nixl_cu12._bindings.nixlBackendError: NIXL_ERR_BACKEND",
    "kv-transfer-stalled": "Request 8236 timed out after 300.0s in KVPoll.WaitingForInput",
    "decode-without-prefill": "RuntimeError: bootstrap_info is required for disaggregated decode "
    "but was not provided",
    "bootstrap-refused": "Error fetching prefill info from bootstrap: HTTPConnectionPool(host='10.0.0.7', "
    "port=30001): connect to 10.0.0.7:30001: Connection refused",
    "nats": "Failed to connect to NATS: connection refused. Verify NATS server is running and accessible.",
    "etcd-lease": "ERROR dynamo_runtime::transports::etcd: Unable to maintain lease - expired or revoked. "
    "Check etcd server status",
    "half-written-key": "ERROR discovery::watcher: error: EOF while parsing a value at line 1 column 0",
    "watchdog": "ERROR scheduler: Watchdog timeout (self.watchdog_timeout=300)",
    "capture-collective": "node2:118:530 [0] NCCL WARN NET/Socket: socket progress error",
    "nccl-timeout": "[Rank 3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=11, "
    "OpType=ALLREDUCE, NumelIn=1, NumelOut=1, Timeout(ms)=600000) ran for 600003 milliseconds",
    "scheduler-died": "RuntimeError: Rank 0 scheduler died during initialization (exit code: -9). "
    "If exit code is -9 (SIGKILL), a common cause is the OS OOM killer.",
}


def test_every_record_has_its_line() -> None:
    assert [known.key for known in KNOWN_FAILURES] == [*LINES]


def test_a_follower_that_waits_for_its_schedulers_tells_which_one_died() -> None:
    hint = failure_hint(["ERROR engine: Scheduler or DataParallelController 4711 terminated with -6"])
    assert hint is not None and "engine process was killed" in hint
    assert failure_hint(["ERROR engine: Scheduler or DataParallelController 4711 terminated with 0"]) is None


@pytest.mark.parametrize("known", KNOWN_FAILURES, ids=lambda known: known.key)
def test_the_line_gives_the_cause_and_the_remedy(known: object) -> None:
    record = next(other for other in KNOWN_FAILURES if other is known)
    hint = failure_hint(["INFO something else", LINES[record.key], "Traceback (most recent call last):"])
    assert hint == f"{record.cause}: {record.remedy}"
    assert "\n" not in hint


def test_the_cause_wins_over_what_follows_from_it() -> None:
    hint = failure_hint([LINES["scheduler-died"], LINES["nccl-timeout"], LINES["modelopt-scale-width"]])
    assert hint is not None
    assert "GLM47_MODELOPT_PATCH" in hint


def test_an_unknown_failure_has_no_hint() -> None:
    assert failure_hint([]) is None
    assert failure_hint(["Traceback (most recent call last):", "ValueError: no"]) is None


@pytest.mark.parametrize("name", ["cold", "termstart", "killparent", "stopsched"])
def test_a_good_start_gives_no_hint(name: str) -> None:
    log = (Path(__file__).parent / "data" / f"{name}.log").read_text("utf-8", "replace")
    assert failure_hint(re.split(r"[\r\n]+", log)) is None


def test_a_killed_scheduler_is_recognised_in_its_real_log() -> None:
    log = (Path(__file__).parent / "data" / "schedstart.log").read_text("utf-8", "replace")
    hint = failure_hint(re.split(r"[\r\n]+", log)[-40:])
    assert hint is not None
    assert hint.startswith("an engine process was killed")


def test_a_scheduler_killed_while_serving_is_recognised_in_its_real_lines() -> None:
    hint = failure_hint(
        [
            "2026-11-23T14:58:47.806024Z ERROR watchdog._check_processes: Subprocess scheduler_0 (pid=2307) "
            "crashed with exit code -9. Triggering SIGQUIT for cleanup...",
            "2026-11-23T14:58:47.806528Z ERROR tokenizer_manager.running_phase_sigquit_handler: SIGQUIT "
            "received. signum=None, frame=None. It usually means one child failed.",
            "2026-11-23T14:58:52.809569Z ERROR tokenizer_manager.dump_requests_before_crash: No live "
            "scheduler processes found; skipping py-spy and CUDA coredump.",
        ]
    )
    assert hint is not None and "engine process was killed" in hint


@pytest.mark.parametrize(
    ("line", "address"),
    [
        # SGLang 0.5.14 on two H100s and 0.5.6.post2 on a CPU, as they came.
        (
            "RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:538] Read error "
            "[10.0.0.2]:2476: Connection reset by peer",
            "10.0.0.2",
        ),
        (
            "RuntimeError: [/__w/pytorch/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error "
            "[10.0.0.1]:62632: Connection reset by peer. This is typically caused by a remote worker hanging",
            "10.0.0.1",
        ),
        # As users of torch and NCCL report them.
        (
            "RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer "
            "[10.233.87.118]:43139",
            "10.233.87.118",
        ),
        (
            "misc/socket.cc:71 NCCL WARN socketProgress: Connection closed by remote peer node2<36138>",
            "node2",
        ),
        (
            "misc/socket.cc:46 NCCL WARN socketProgressOpt: Call to send to 10.44.137.149<52905> failed : "
            "Connection reset by peer",
            "10.44.137.149",
        ),
    ],
)
def test_a_lost_rank_is_told_by_its_address(line: str, address: str) -> None:
    assert lost_rank(["INFO something else", line, "SIGQUIT received."]) == address


@pytest.mark.parametrize(
    "line",
    [
        "RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting "
        "3600000ms for recv operation to complete",
        "httpx.ReadError: [Errno 104] Connection reset by peer",
        "ERROR nixl: Connection closed by peer",
    ],
)
def test_other_broken_connections_are_no_lost_ranks(line: str) -> None:
    assert lost_rank([line]) is None
