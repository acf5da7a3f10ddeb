"""Failures of machines and networks that users of this stack meet (`records`)."""

from __future__ import annotations

from entrypoint.supervise.failures.lines import Level
from entrypoint.supervise.failures.signature import KnownFailure, known

MACHINE: tuple[KnownFailure, ...] = (
    known(
        "port-taken",
        r"\b[Aa]ddress already in use\b|\bPort is already in use\. \w+="
        r"|\bengine_info_bootstrap_port \d+ is already in use"
        r"|\w+_port at \d+ is not available in \d+ seconds\.",
        "a port that this process needs is taken",
        "see the ports in `glm47-runner plan`, and end what holds the one named in the log or move it",
        "Dynamo 0.8.1 (Rust); sglang 0.5.6.post2 to 0.5.23, server_args.py, utils; dynamo 7366",
    ),
    known(
        "shm-too-small",
        r"\bError while creating shared memory segment /dev/shm/nccl-",
        "/dev/shm is too small for NCCL",
        "run the container with --ipc host or a larger --shm-size; in Kubernetes mount a sized /dev/shm",
        "NCCL, misc/shmutils.cc; sglang 4259",
        writer="nccl",
    ),
    known(
        "fabric-not-ready",
        r"(?i)\b(?:error|failure):? 802\b|\bCUDA error: system not yet initialized|cudaErrorSystemNotReady",
        "the GPUs' NVLink fabric is not up: CUDA error 802",
        "start the Fabric Manager (on GB200 the NVLink switches have it), and see Fabric in `nvidia-smi -q`",
        "CUDA's error 802, cudaErrorSystemNotReady, as PyTorch and NCCL print it",
    ),
    known(
        "gpu-memory-unbalanced",
        r"The memory capacity is unbalanced\. Some GPUs may be occupied by other processes",
        "another process holds memory of one of this worker's GPUs",
        "end it (`nvidia-smi` names it), or give the worker other GPUs",
        "sglang 0.5.6.post2, model_executor/model_runner.py; 0.5.23, distributed/bootstrap.py",
        raised=True,
    ),
    known(
        "host-memory",
        r"Not enough host memory\b",
        "the host's memory does not hold the hierarchical KV cache",
        "lower --hicache-ratio or --hicache-size, or raise the container's memory limit",
        "sglang 0.5.6.post2, mem_cache/memory_pool_host.py; 0.5.23, mem_cache/pool_host/base.py",
        raised=True,
    ),
    known(
        "mnnvl-imex",
        r"\bMNNVL \(cliqueSize \d+\) is available but not working\b",
        "NVLink between nodes (MNNVL) does not work: IMEX is down, or the container has no channel",
        "give it /dev/nvidia-caps-imex-channels and see `nvidia-imex-ctl -N`, or set NCCL_MNNVL_ENABLE=0",
        "NCCL 2.27, mnnvl.cc",
        writer="nccl",
    ),
    known(
        "nvls",
        r"\bFailed to bind NVLink SHARP \(NVLS\) Multicast memory\b|\bnvls\.cc:\d+.*(?i:cuda failure \d)"
        r"|(?i:\bcuda (?:failure|error)):? 401\b",
        "NVLink multicast could not be set up: the Fabric Manager or IMEX is down, or its groups are used up",
        "start it on every node, or set NCCL_NVLS_ENABLE=0",
        "NCCL 2.27 and 2.29, transport/nvls.cc; pytorch ci-infra 541",
        writer="nccl",
    ),
    known(
        "gpu-memory",
        r"\bCUDA out of memory\b|\btorch\.(?:cuda\.)?OutOfMemoryError\b"
        r"|\bNot enough (?:GPU )?memory\. Please try to increase --mem-fraction-static",
        "the GPU's memory does not hold weights, KV cache and graphs together",
        "see what else uses the GPU, or change --mem-fraction-static",
        "PyTorch; sglang 0.5.6.post2, model_runner.py; 0.5.14, pool_configurator.py",
        raised=True,
    ),
)

NETWORK: tuple[KnownFailure, ...] = (
    known(
        "gloo-connect",
        r"\bGloo connectFullMesh failed\b",
        "the ranks cannot reach each other at the addresses they gave (127.0.x.x: a host name on loopback)",
        "set GLM47_INTERFACE to the interface between the nodes, and open their ports to each other",
        "PyTorch 2.9, ProcessGroupGloo.cpp",
    ),
    known(
        "gloo-timeout",
        r"/gloo/\S+\] Timed out waiting \d+ms for \w+ operation to complete",
        "a collective between the ranks timed out: one of them is behind, hung or gone",
        "find the rank that is behind in the other ranks' logs; during a capture, raise GLM47_DIST_TIMEOUT",
        "gloo, transport/tcp/unbound_buffer.cc",
    ),
    known(
        "cuda-ipc-imex",
        r"\bcuda_ipc\w*\.c:\d+ +UCX +(?:ERROR|FATAL)\b"
        r"|\bUCX +(?:ERROR|FATAL)\b.*\b(?:cuda_ipc|cuIpcOpenMemHandle|open ipc mem handle)",
        "GPU memory cannot be shared between nodes without an IMEX channel",
        "give the container /dev/nvidia-caps-imex-channels, or take cuda_ipc out of UCX_TLS",
        "UCX 1.19 and 1.20, uct/cuda/cuda_ipc; nixl 1614",
        writer="ucx",
    ),
    known(
        "ucx-lane",
        r"\bfailed to select lane\b|\bno [\w ]+ transport to .*: ",
        "UCX_TLS leaves out a transport that GPU memory needs",
        "add cuda_ipc and cuda_copy to UCX_TLS",
        "UCX, ucp/wireup/select.c; nixl 1110",
        writer="ucx",
    ),
    known(
        "nixl-disconnect",
        r"\bNIXL_ERR_REMOTE_DISCONNECT\b",
        "a KV transfer began before its peer was ready, or the peer has left",
        "look at the other role's log; start decode after prefill is ready",
        "NIXL 0.8 to 1.5; nixl 1983",
        vague=True,
    ),
    known(
        "nixl-backend",
        r"\bNIXL_ERR_BACKEND\b",
        "the transport under NIXL gave an error",
        "see the UCX lines before it; pin UCX_NET_DEVICES and check UCX_TLS",
        "NIXL 0.8 to 1.5",
        vague=True,
    ),
    known(
        "bootstrap-refused",
        r"\bfrom bootstrap(?:_addr)?: .*\b[Cc]onnection refused"
        r"|:30001\b.*\b[Cc]onnection refused|\b[Cc]onnection refused\b.*:30001\b",
        "the bootstrap server lives on the prefill leader and did not answer",
        "check that the prefill leader runs and that its address is the one decode uses",
        "sglang 0.5.6.post2 to 0.5.23, disaggregation/common/conn.py; dynamo 4855",
    ),
    known(
        "decode-handshake",
        r"\bDecode handshake failed for request rank=",
        "decode could not agree with prefill on a KV transfer",
        "see prefill's log, and whether decode reaches prefill's bootstrap server and transfer ports",
        "sglang 0.5.6.post2 to 0.5.23, disaggregation/decode.py",
        vague=True,
    ),
    known(
        "kv-transfer-stalled",
        r"\bRequest \S+ timed out after [\d.]+s in KVPoll\.\w+",
        "a KV transfer between prefill and decode stood still",
        "pin UCX_NET_DEVICES to the fabric's devices and check the fabric",
        "sglang 0.5.6.post2 to 0.5.23, disaggregation/*/conn.py; sglang 11648",
        vague=True,
    ),
    known(
        "decode-without-prefill",
        r"\bbootstrap_info is required\b",
        "decode was given a request that no prefill worker had seen",
        "run the frontend with --enforce-disagg, and wait for prefill before sending requests",
        "Dynamo 0.8.1, decode_handler.py; dynamo 6957",
        raised=True,
    ),
    known(
        "nats-refused",
        r"\bnats: authorization violation\b",
        "NATS does not let in who shows what this process was given",
        "give all containers the same GLM47_NATS_USERNAME and GLM47_NATS_PASSWORD, or GLM47_NATS_TOKEN, and "
        "start them anew",
        "ran: Dynamo 0.8.1 to 1.6.1 with nats-server 2.15",
        least=Level.WARNING,
    ),
    known(
        "nats",
        r"(?i)\bfailed to connect to nats\b|\bJetStream not available\b|\bno responders\b.*\bjetstream\b",
        "NATS is missing, has no JetStream, or is older than 2.10",
        "start nats-server 2.10 or newer with -js first, and check NATS_SERVER",
        "Dynamo 0.8.1 (Rust)",
        least=Level.WARNING,
    ),
    known(
        "etcd-lease",
        r"(?i)\bunable to (?:maintain|create) lease\b"
        r"|\blease (?:keep.?alive )?(?:has )?(?:expired|revoked|lost)\b",
        "etcd was out of reach for longer than a lease lasts (10 s)",
        "keep etcd's disk and node calm, and check the network to ETCD_ENDPOINTS",
        "Dynamo 0.8.1, transports/etcd/lease.rs; dynamo 3493",
    ),
    known(
        "half-written-key",
        r"\bEOF while parsing a value at line 1 column 0\b",
        "the frontend read a half-written key of the file store",
        "restart the frontend once the worker is ready, or use etcd",
        "Dynamo 0.8.1, serde_json",
        least=Level.WARNING,
    ),
    known(
        "capture-collective",
        r"\bsocket progress error\b",
        "a collective between nodes broke, usually while one rank captured CUDA graphs",
        "set NCCL_TIMEOUT and the MNNVL variables on every rank, and raise GLM47_DIST_TIMEOUT",
        "NCCL, transport/net_socket.cc",
        writer="nccl",
    ),
    known(
        "nccl-timeout",
        r"\bWorkNCCL\(.*Timeout\(ms\)=\d+",
        "a collective timed out: one rank is behind or gone",
        "find the rank that is behind in the other ranks' logs, or raise GLM47_DIST_TIMEOUT",
        "PyTorch, ProcessGroupNCCL.cpp; sglang 3709",
    ),
)
