"""What a plan asks of its machine. Pure."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from entrypoint.plan.types import Plan, Process


@dataclass(frozen=True)
class Wanted:
    """All that the judgement of a machine depends on. Durations are seconds."""

    gpus: int = 0
    """0: no engine that needs one runs here."""
    memory: float = 0.85
    """Share of a GPU's memory that the engine takes for weights and KV cache."""
    weights: bool = False
    frontend: bool = False
    multi_node_nvlink: bool = False
    rdma: bool = False
    """KV caches or collectives go to other nodes."""
    adapters: tuple[str, ...] = ()
    """Those that NCCL_IB_HCA or UCX_NET_DEVICES names."""
    start_timeout: float = 3600.0
    stall_timeout: float = 1800.0
    cache: str | None = None


def wanted(plan: Plan, environ: dict[str, str]) -> Wanted:
    """What `plan` asks for; `environ` is what its processes start from."""
    engines = [p for p in plan.processes if p.name in ENGINES]
    env = {**environ, **(engines[0].env if engines else {})}
    caches = [p.env[CACHE] for p in plan.processes if CACHE in p.env]
    given = {name: origin.value for name, origin in plan.settings.items()}
    return Wanted(
        gpus=int(given["GLM47_GPUS_PER_NODE"]) if plan.needs_weights else 0,
        memory=max(map(_memory, engines), default=Wanted.memory),
        weights=plan.needs_weights,
        frontend=any(p.name == "frontend" for p in plan.processes),
        multi_node_nvlink=plan.nnodes > 1 and env.get("NCCL_MNNVL_ENABLE") == "1",
        rdma=plan.needs_weights and (plan.nnodes > 1 or any(p.name in SPLIT for p in plan.processes)),
        adapters=_named(env),
        start_timeout=min(
            (p.start_timeout for p in engines if p.start_timeout), default=Wanted.start_timeout
        ),
        stall_timeout=min(
            (p.stall_timeout for p in engines if p.stall_timeout), default=Wanted.stall_timeout
        ),
        cache=caches[0].rpartition("/")[0] if caches else None,
    )


ENGINES = ("prefill", "decode", "aggregated")
SPLIT = ("prefill", "decode")
CACHE = "TRITON_CACHE_DIR"
"""One of the variables that lead into the directory of caches."""


def _memory(engine: Process) -> float:
    """The share of a GPU's memory on an engine's command line; Wanted's where there is none."""
    found = dict(itertools.pairwise(engine.argv)).get("--mem-fraction-static", "")
    try:
        return float(found)
    except ValueError:
        return Wanted.memory


def _named(env: dict[str, str]) -> tuple[str, ...]:
    """Adapters by name: `mlx5_0:1,mlx5_1`, `=mlx5_0`; a prefix or an exclusion (`^`) names none."""
    named: dict[str, None] = {}
    nccl = env.get("NCCL_IB_HCA", "")
    if nccl.startswith("="):
        named.update(dict.fromkeys(word.partition(":")[0] for word in nccl[1:].split(",")))
    for word in env.get("UCX_NET_DEVICES", "").split(","):
        name, colon, _ = word.strip().partition(":")
        if colon:
            named[name] = None
    return tuple(name for name in named if name)
